//! Faults of containers: `validateContainers` and `validateInitContainers` upstream.

use std::collections::HashSet;

use machinery::{Cause, Faults};
use serde_json::{Value, json};

use super::volume::{Volumes, validate_mounts};
use super::{environment, ports, probe, resources, security, validate_unique_name};
use crate::kinds::field::{items, paths, text};

const RESTARTS: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESIZED: [&str; 2] = ["cpu", "memory"];
const WHEN_RESIZED: [&str; 2] = ["NotRequired", "RestartContainer"];

/// Containers and init containers of a pod spec; `volumes` are the names of its volumes.
pub(super) fn validate_containers(spec: &Value, path: &str, volumes: &Volumes<'_>, faults: &mut Faults) {
    if items(&spec["containers"]).is_empty() {
        faults.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut names = HashSet::new();
    let claims: HashSet<&str> =
        items(&spec["resourceClaims"]).iter().map(|claim| text(claim, "name")).collect();
    for list in ["containers", "initContainers"] {
        for (path, container) in paths(&spec[list], &format!("{path}.{list}")) {
            validate_image(container, spec, &path, faults);
            validate_unique_name(text(container, "name"), &path, &mut names, faults);
            ports::validate_ports(
                &container["ports"],
                &format!("{path}.ports"),
                spec["hostNetwork"] == true,
                faults,
            );
            environment::validate_environment(&container["env"], volumes, &format!("{path}.env"), faults);
            environment::validate_sources(&container["envFrom"], &format!("{path}.envFrom"), faults);
            validate_mounts(container, volumes, &path, faults);
            resources::validate_resources(
                &container["resources"],
                &claims,
                &format!("{path}.resources"),
                faults,
            );
            validate_resize(container, &format!("{path}.resizePolicy"), faults);
            security::validate_of_container(container, spec["hostUsers"] == false, &path, faults);
            validate_restart(container, list == "containers", &path, faults);
            let stays = list == "containers" || container["restartPolicy"] == "Always";
            if stays {
                probe::validate_of_container(
                    container,
                    &spec["terminationGracePeriodSeconds"],
                    &path,
                    faults,
                );
            } else {
                validate_ends(container, &path, faults);
            }
        }
    }
}

fn validate_image(container: &Value, spec: &Value, path: &str, faults: &mut Faults) {
    let image = text(container, "image");
    // Runtimes that a RuntimeClass names may do without: processes of the host have no image.
    if image.is_empty() && text(spec, "runtimeClassName").is_empty() {
        faults.push(Cause::required(format!("{path}.image"), ""));
    } else if image.trim() != image {
        let why = "must not have leading or trailing whitespace";
        faults.push(Cause::invalid(format!("{path}.image"), &container["image"], why));
    }
}

/// A container that ends before the pod is ready has nobody who would ask it anything.
fn validate_ends(container: &Value, path: &str, faults: &mut Faults) {
    for field in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        if !container[field].is_null() {
            let why = "may not be set for init containers without restartPolicy=Always";
            faults.push(Cause::forbidden(format!("{path}.{field}"), why));
        }
    }
}

fn validate_resize(container: &Value, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    // Upstream says which of them it is only where one stands there twice.
    for (at, policy) in paths(&container["resizePolicy"], path) {
        for (field, choices) in [("resourceName", RESIZED), ("restartPolicy", WHEN_RESIZED)] {
            match text(policy, field) {
                "" => faults.push(Cause::required(path, "")),
                value if !choices.contains(&value) => {
                    faults.push(Cause::not_supported(path, &policy[field], &choices));
                }
                _ => {}
            }
        }
        if !seen.insert(text(policy, "resourceName")) {
            faults.push(Cause::duplicate(at, &json!(text(policy, "resourceName"))));
        }
    }
}

/// How a container starts again, and after which ends.
fn validate_restart(container: &Value, has_rules: bool, path: &str, faults: &mut Faults) {
    let policy = &container["restartPolicy"];
    if policy.as_str().is_some_and(|policy| !RESTARTS.contains(&policy)) {
        faults.push(Cause::not_supported(format!("{path}.restartPolicy"), policy, &RESTARTS));
    }
    let rules = items(&container["restartPolicyRules"]);
    if !rules.is_empty() && policy.is_null() {
        let why = "must specify restartPolicy when restart rules are used";
        faults.push(Cause::required(format!("{path}.restartPolicy"), why));
    }
    let list = format!("{path}.restartPolicyRules");
    for (path, rule) in paths(&container["restartPolicyRules"], &list).filter(|_| has_rules) {
        if text(rule, "action") != "Restart" {
            let action = json!(text(rule, "action"));
            faults.push(Cause::not_supported(format!("{path}.action"), &action, &["Restart"]));
        }
        let codes = &rule["exitCodes"];
        if codes.is_null() {
            faults.push(Cause::required(format!("{path}.exitCodes"), "must be specified"));
        } else if !matches!(text(codes, "operator"), "In" | "NotIn") {
            let operator = json!(text(codes, "operator"));
            faults.push(Cause::not_supported(
                format!("{path}.exitCodes.operator"),
                &operator,
                &["In", "NotIn"],
            ));
        }
    }
}
