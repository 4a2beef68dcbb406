//! Where a webhook is called.

use machinery::{Cause, Faults};
use serde_json::Value;

use super::field;

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
            for field in ["name", "namespace"] {
                field::require(&service[field], format!("{path}.{field}"), "", faults);
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

fn validate_url(value: &Value, path: &str, faults: &mut Faults) {
    let url = value.as_str().unwrap_or_default();
    let mut invalid = |why: &str| faults.push(Cause::invalid(path, value, why));
    let Some((scheme, rest)) = url.split_once("://") else {
        return invalid("url must be of the form https://host/path");
    };
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
    let inner = url.strip_prefix('/').unwrap_or(url);
    let inner = inner.strip_suffix('/').unwrap_or(inner);
    if inner.split('/').any(str::is_empty) {
        invalid("segments may not be empty");
    }
}
