//! Where a webhook is called.

use machinery::{Cause, Faults, name};
use serde_json::Value;

use super::field::{self, items, paths};

/// `WebhookClientConfig`: a URL or a service, not both.
pub(crate) fn validate_client(config: &Value, path: &str, faults: &mut Faults) {
    let (url, service) = (&config["url"], &config["service"]);
    match (url.is_null(), service.is_null()) {
        (true, true) | (false, false) => {
            faults.push(Cause::required(path, "exactly one of url or service is required"));
        }
        (false, true) => validate_url(url, &format!("{path}.url"), faults),
        (true, false) => {
            let path = format!("{path}.service");
            // Upstream calls each by the other's name.
            for (field, called) in [("name", "namespace"), ("namespace", "name")] {
                field::require(&service[field], format!("{path}.{called}"), "", faults);
            }
            if !service["path"].is_null() {
                validate_path(&service["path"], &format!("{path}.path"), faults);
            }
            if !service["port"].is_null() {
                field::port_number(&service["port"], format!("{path}.port"), faults);
            }
        }
    }
}

/// The versions of reviews that a webhook takes: one of them must be one that is sent.
pub(crate) fn validate_review_versions(versions: &Value, path: &str, faults: &mut Faults) {
    if !field::require(versions, path, "must specify one of v1, v1beta1", faults) {
        return;
    }
    for (index, (path, version)) in paths(versions, path).enumerate() {
        if items(versions)[..index].contains(version) {
            faults.push(Cause::invalid(path, version, "duplicate version"));
        } else {
            field::named(version, path, name::label_1035_fault, faults);
        }
    }
    if !items(versions).iter().any(|version| version == "v1" || version == "v1beta1") {
        faults.push(Cause::invalid(path, versions, "must include at least one of v1, v1beta1"));
    }
}

fn validate_url(value: &Value, path: &str, faults: &mut Faults) {
    let url = value.as_str().unwrap_or_default();
    let mut invalid = |why: &str| faults.push(Cause::invalid(path, value, why));
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    if scheme != "https" {
        invalid("'https' is the only allowed URL scheme; desired format: https://host[/path]");
    }
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() || host.starts_with(':') {
        invalid("host must be specified; desired format: https://host[/path]");
    }
    for (character, what) in [('@', "user information"), ('#', "fragments"), ('?', "query parameters")] {
        let there = if character == '@' { host.contains('@') } else { rest.contains(character) };
        if there {
            invalid(&format!("{what} are not permitted in the URL"));
        }
    }
}

fn validate_path(value: &Value, path: &str, faults: &mut Faults) {
    let url = value.as_str().unwrap_or_default();
    let mut invalid = |why: &str| faults.push(Cause::invalid(path, value, why));
    if url.is_empty() || url == "/" {
        return;
    }
    if url == "//" {
        return invalid("segment[0] may not be empty");
    }
    if !url.starts_with('/') {
        invalid("must start with a '/'");
    }
    // Upstream looks at what follows the first character, whatever that is.
    let inner = url.chars().next().map_or(url, |first| &url[first.len_utf8()..]);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    for (index, segment) in inner.split('/').enumerate() {
        match segment {
            "" => invalid(&format!("segment[{index}] may not be empty")),
            segment => {
                if let Some(why) = name::subdomain_fault(segment) {
                    invalid(&format!("segment[{index}]: {why}"));
                }
            }
        }
    }
}
