//! Faults of security contexts: `ValidateSecurityContext` and `ValidatePodSecurityContext` upstream.

use std::collections::HashSet;

use machinery::name::subdomain_fault;
use machinery::{Cause, Faults};
use serde_json::{Value, json};

use super::files::validate_descending;
use crate::kinds::field::{items, paths, text};

const SYSTEMS: [&str; 2] = ["linux", "windows"];
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const CHANGES: [&str; 2] = ["MountOption", "Recursive"];
const LONGEST_SYSCTL: usize = 253;
const MOST_CREDENTIAL: usize = 64 * 1024;
const NOT_ON_LINUX: &str = "windows options cannot be set for a linux pod";

/// What a pod says of the system that it runs on, and of the rights of all its containers.
pub(super) fn validate_of_pod(spec: &Value, path: &str, faults: &mut Faults) {
    validate_system(spec, path, faults);
    validate_host_processes(spec, path, faults);
    let context = &spec["securityContext"];
    let path = format!("{path}.securityContext");
    if spec["shareProcessNamespace"] == true && spec["hostPID"] == true {
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        faults.push(Cause::invalid(format!("{path}.shareProcessNamespace"), &true.into(), why));
    }
    for field in ["fsGroup", "runAsGroup", "runAsUser"] {
        validate_id(&context[field], format!("{path}.{field}"), faults);
    }
    for (path, group) in paths(&context["supplementalGroups"], &format!("{path}.supplementalGroups")) {
        validate_id(group, path, faults);
    }
    if context["seLinuxChangePolicy"].as_str().is_some_and(|policy| !CHANGES.contains(&policy)) {
        let field = format!("{path}.seLinuxChangePolicy");
        faults.push(Cause::not_supported(field, &context["seLinuxChangePolicy"], &CHANGES));
    }
    validate_sysctls(spec, &path, faults);
    validate_profiles(context, &path, faults);
    validate_windows(&context["windowsOptions"], &path, faults);
}

fn validate_system(spec: &Value, path: &str, faults: &mut Faults) {
    let system = &spec["os"];
    if system.is_null() {
        return;
    }
    match text(system, "name") {
        "" => faults.push(Cause::required(format!("{path}.os.name"), "")),
        name if !SYSTEMS.contains(&name) => {
            faults.push(Cause::not_supported(format!("{path}.os"), &system["name"], &SYSTEMS));
        }
        "linux" => {
            let of_windows = "securityContext.windowsOptions";
            if !spec["securityContext"]["windowsOptions"].is_null() {
                faults.push(Cause::forbidden(format!("{path}.{of_windows}"), NOT_ON_LINUX));
            }
            for list in ["containers", "initContainers", "ephemeralContainers"] {
                for (path, container) in paths(&spec[list], &format!("{path}.{list}")) {
                    if !container["securityContext"]["windowsOptions"].is_null() {
                        faults.push(Cause::forbidden(format!("{path}.{of_windows}"), NOT_ON_LINUX));
                    }
                }
            }
        }
        _ => {}
    }
}

/// The rights of one container.
pub(super) fn validate_of_container(container: &Value, has_own_users: bool, path: &str, faults: &mut Faults) {
    let context = &container["securityContext"];
    let path = format!("{path}.securityContext");
    for field in ["runAsGroup", "runAsUser"] {
        validate_id(&context[field], format!("{path}.{field}"), faults);
    }
    if context["procMount"] == "Unmasked" && !has_own_users {
        let why = "`hostUsers` must be false to use `Unmasked`";
        faults.push(Cause::invalid(format!("{path}.procMount"), &context["procMount"], why));
    }
    validate_windows(&context["windowsOptions"], &path, faults);
    if context["allowPrivilegeEscalation"] == false {
        if context["privileged"] == true {
            let why = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            faults.push(Cause::invalid(&path, context, why));
        }
        let added = items(&context["capabilities"]["add"]);
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            let why = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            faults.push(Cause::invalid(&path, context, why));
        }
    }
    validate_profiles(context, &path, faults);
}

/// What only Windows has: names, and processes of the host.
fn validate_windows(options: &Value, path: &str, faults: &mut Faults) {
    let path = format!("{path}.windowsOptions");
    let mut check = |field: &str, fits: fn(&str) -> bool| {
        if options[field].as_str().is_some_and(|text| !fits(text)) {
            faults.push(Cause::invalid(
                format!("{path}.{field}"),
                &options[field],
                "is none that Windows has",
            ));
        }
    };
    check("gmsaCredentialSpecName", |name| subdomain_fault(name).is_none());
    check("gmsaCredentialSpec", |credential| (1..=MOST_CREDENTIAL).contains(&credential.len()));
    check("runAsUserName", is_windows_user);
}

/// `DOMAIN\\USER`, or a user alone.
fn is_windows_user(name: &str) -> bool {
    if name.is_empty() || name.chars().any(char::is_control) {
        return false;
    }
    let (domain, user) = name.split_once('\\').map_or((None, name), |(domain, user)| (Some(domain), user));
    let is_domain = |domain: &str| {
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
        let is_netbios = (1..=15).contains(&domain.len())
            && !domain.contains([':', '*', '?', '"', '<', '>', '|', '/', '\\', '.']);
        is_netbios || domain.len() < 256 && !domain.is_empty() && plain(domain)
    };
    domain.is_none_or(is_domain)
        && (1..=104).contains(&user.chars().count())
        && !user.bytes().all(|b| b == b'.' || b == b' ')
        && !user.contains(['"', '/', '\\', '[', ']', ':', ';', '|', '=', ',', '+', '*', '?', '<', '>', '@'])
}

/// Windows runs processes of the host only in pods of which all are, on the host's network.
fn validate_host_processes(spec: &Value, path: &str, faults: &mut Faults) {
    let said = |context: &Value| context["windowsOptions"]["hostProcess"].as_bool();
    let of_pod = said(&spec["securityContext"]);
    let containers = ["containers", "initContainers"].iter().flat_map(|list| items(&spec[*list]));
    let of_containers: Vec<bool> = containers
        .map(|container| said(&container["securityContext"]).or(of_pod).unwrap_or_default())
        .collect();
    if !of_containers.contains(&true) {
        return;
    }
    if of_containers.contains(&false) {
        let why =
            "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        faults.push(Cause::invalid(path, &"".into(), why));
    }
    if spec["hostNetwork"] != true {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        faults.push(Cause::invalid(format!("{path}.hostNetwork"), &false.into(), why));
    }
}

fn validate_id(id: &Value, path: String, faults: &mut Faults) {
    if id.as_i64().is_some_and(|id| !(0..=i64::from(i32::MAX)).contains(&id)) {
        faults.push(Cause::invalid(path, id, "must be between 0 and 2147483647, inclusive"));
    }
}

/// Profiles of seccomp and AppArmor: only those of the host have a name.
fn validate_profiles(context: &Value, path: &str, faults: &mut Faults) {
    for kind in ["seccompProfile", "appArmorProfile"] {
        let profile = &context[kind];
        if profile.is_null() {
            continue;
        }
        let path = format!("{path}.{kind}");
        let (name, field) = (&profile["localhostProfile"], format!("{path}.localhostProfile"));
        match text(profile, "type") {
            "Localhost" => {
                let text = text(profile, "localhostProfile");
                let says_nothing = kind == "appArmorProfile" && text.trim().is_empty();
                if name.is_null() || says_nothing {
                    faults.push(Cause::required(field, "must be set when profile type is Localhost"));
                } else if kind == "seccompProfile" {
                    validate_descending(text, &field, faults);
                }
            }
            // Of a profile of AppArmor that has no type, upstream says nothing more.
            "" if kind == "appArmorProfile" => {}
            _ if !name.is_null() => {
                faults.push(Cause::invalid(field, name, "can only be set when profile type is Localhost"));
            }
            _ => {}
        }
        match text(profile, "type") {
            "" => faults.push(Cause::required(format!("{path}.type"), "type is required")),
            kind if !PROFILES.contains(&kind) => {
                faults.push(Cause::not_supported(format!("{path}.type"), &profile["type"], &PROFILES));
            }
            _ => {}
        }
    }
}

fn validate_sysctls(spec: &Value, path: &str, faults: &mut Faults) {
    let mut names = HashSet::new();
    for (path, sysctl) in paths(&spec["securityContext"]["sysctls"], &format!("{path}.sysctls")) {
        let name = text(sysctl, "name");
        let is_part = |part: &str| {
            let bytes = part.as_bytes();
            let ends = [bytes.first(), bytes.last()];
            ends.iter().all(|b| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit()))
                && bytes
                    .iter()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
        };
        let field = format!("{path}.name");
        let of_host = spec["hostNetwork"] == true && name.starts_with("net.")
            || spec["hostIPC"] == true
                && ["kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."]
                    .iter()
                    .any(|start| name.starts_with(start));
        if of_host {
            faults.push(Cause::invalid(
                &field,
                &sysctl["name"],
                "may not be set where the pod shares it with its host",
            ));
        }
        if name.is_empty() {
            faults.push(Cause::required(field, ""));
        } else if name.len() > LONGEST_SYSCTL || !name.split(['.', '/']).all(is_part) {
            let why = "must be a name of a sysctl, such as net.core.somaxconn";
            faults.push(Cause::invalid(field, &sysctl["name"], why));
        } else if !names.insert(name) {
            faults.push(Cause::duplicate(field, &json!(name)));
        }
    }
}
