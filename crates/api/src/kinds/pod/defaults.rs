//! Defaults of pods: `pkg/apis/core/v1/defaults.go` upstream.

use machinery::Object;
use serde_json::{Map, Value, json};

use crate::amounts::pod_resources;

type Fields = Map<String, Value>;

/// Mode of files in volumes of secrets and the like: 0644.
const FILE_MODE: u32 = 420;
/// Seconds that a projected token lasts.
const TOKEN_SECONDS: u32 = 3600;

/// The defaults of every pod spec, templates' included.
pub(crate) fn set_pod_spec_defaults(spec: &mut Value) {
    let Value::Object(spec) = spec else { return };
    // Upstream has this one switched off.
    spec.remove("schedulingGroup");
    // Two names for one field: a client that sets one means both.
    let account = spec.get("serviceAccountName").or_else(|| spec.get("serviceAccount")).cloned();
    if let Some(account) = account {
        spec.insert("serviceAccountName".into(), account.clone());
        spec.insert("serviceAccount".into(), account);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in objects(spec, list) {
            set_container_defaults(container);
        }
    }
    for volume in objects(spec, "volumes") {
        set_volume_defaults(volume);
    }
    for (field, value) in [
        ("restartPolicy", json!("Always")),
        ("terminationGracePeriodSeconds", json!(30)),
        ("dnsPolicy", json!("ClusterFirst")),
        ("securityContext", json!({})),
        ("schedulerName", json!("default-scheduler")),
    ] {
        or_default(spec, field, value);
    }
}

/// The defaults that pods have beyond those of templates.
pub(super) fn set_pod_defaults(spec: &mut Value) {
    set_requests_of_pod(spec);
    let Value::Object(spec) = spec else { return };
    or_default(spec, "enableServiceLinks", Value::Bool(true));
    let on_host = spec.get("hostNetwork") == Some(&Value::Bool(true));
    for list in ["containers", "initContainers"] {
        for container in objects(spec, list) {
            set_requests(container);
            for port in objects(container, "ports").filter(|_| on_host) {
                if let Some(number) = port.get("containerPort").cloned() {
                    or_default(port, "hostPort", number);
                }
            }
        }
    }
}

/// A pod that says what it takes as a whole asks for what its containers ask for together, or for what it is limited to.
fn set_requests_of_pod(spec: &mut Value) {
    let says = |part: &str| spec["resources"][part].as_object().is_some_and(|amounts| !amounts.is_empty());
    if !says("requests") && !says("limits") {
        return;
    }
    let mut of_containers = spec.clone();
    of_containers["resources"] = Value::Null;
    if let Value::Object(map) = &mut of_containers {
        for list in ["containers", "initContainers"] {
            objects(map, list).for_each(set_requests);
        }
    }
    let together = pod_resources(&Object(Fields::from_iter([("spec".to_owned(), of_containers)])), false);
    let limits = spec["resources"]["limits"].clone();
    let mut wanted: Fields = Fields::new();
    for resource in ["cpu", "memory"] {
        let amount = together.requests.get(resource).map(|amount| amount.to_string().into());
        let amount = amount.or_else(|| limits.get(resource).cloned());
        wanted.extend(amount.map(|amount| (resource.to_owned(), amount)));
    }
    if wanted.is_empty() {
        return;
    }
    let requests =
        spec["resources"].as_object_mut().map(|map| map.entry("requests").or_insert_with(|| json!({})));
    if let Some(Value::Object(requests)) = requests {
        for (resource, amount) in wanted {
            requests.entry(resource).or_insert(amount);
        }
    }
}

/// What is limited and not requested is requested as limited.
fn set_requests(container: &mut Fields) {
    let Some(Value::Object(resources)) = container.get_mut("resources") else { return };
    let Some(limits) = resources.get("limits").and_then(Value::as_object).cloned() else { return };
    let requests = resources.entry("requests").or_insert_with(|| json!({}));
    if let Value::Object(requests) = requests {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

fn set_container_defaults(container: &mut Fields) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = pull_policy(image);
    or_default(container, "terminationMessagePath", "/dev/termination-log".into());
    or_default(container, "terminationMessagePolicy", "File".into());
    or_default(container, "imagePullPolicy", policy.into());
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(Value::Object(probe)) = container.get_mut(probe) {
            for (field, value) in [
                ("timeoutSeconds", 1),
                ("periodSeconds", 10),
                ("successThreshold", 1),
                ("failureThreshold", 3),
            ] {
                or_default(probe, field, value.into());
            }
            set_handler_defaults(probe);
        }
    }
    // Upstream has this one switched off too; what hooks were about nothing else are none.
    let lifecycle = container.get_mut("lifecycle").and_then(Value::as_object_mut);
    if lifecycle.is_some_and(|lifecycle| lifecycle.remove("stopSignal").is_some() && lifecycle.is_empty()) {
        container.remove("lifecycle");
    }
    if let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") {
        for hook in ["postStart", "preStop"] {
            if let Some(Value::Object(hook)) = lifecycle.get_mut(hook) {
                set_handler_defaults(hook);
            }
        }
    }
    for variable in objects(container, "env") {
        if let Some(Value::Object(source)) = variable.get_mut("valueFrom") {
            set_reference_defaults(source);
        }
    }
}

fn set_handler_defaults(handler: &mut Fields) {
    if let Some(Value::Object(get)) = handler.get_mut("httpGet") {
        or_default(get, "path", "/".into());
        or_default(get, "scheme", "HTTP".into());
    }
    if let Some(Value::Object(grpc)) = handler.get_mut("grpc") {
        grpc.entry("service").or_insert_with(|| "".into());
    }
}

fn set_reference_defaults(source: &mut Fields) {
    if let Some(Value::Object(field)) = source.get_mut("fieldRef") {
        or_default(field, "apiVersion", "v1".into());
    }
    if let Some(Value::Object(field)) = source.get_mut("resourceFieldRef") {
        or_default(field, "divisor", "0".into());
    }
}

fn set_volume_defaults(volume: &mut Fields) {
    if volume.keys().all(|field| field == "name") {
        volume.insert("emptyDir".into(), json!({}));
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(Value::Object(source)) = volume.get_mut(source) {
            or_default(source, "defaultMode", FILE_MODE.into());
            for item in objects(source, "items") {
                set_reference_defaults(item);
            }
            for projection in objects(source, "sources") {
                if let Some(Value::Object(token)) = projection.get_mut("serviceAccountToken") {
                    or_default(token, "expirationSeconds", TOKEN_SECONDS.into());
                }
                if let Some(Value::Object(downward)) = projection.get_mut("downwardAPI") {
                    objects(downward, "items").for_each(set_reference_defaults);
                }
            }
        }
    }
    if let Some(Value::Object(path)) = volume.get_mut("hostPath") {
        path.entry("type").or_insert_with(|| "".into());
    }
    if let Some(Value::Object(image)) = volume.get_mut("image") {
        let policy = pull_policy(image.get("reference").and_then(Value::as_str).unwrap_or_default());
        or_default(image, "pullPolicy", policy.into());
    }
    let claim = volume.get_mut("ephemeral").and_then(|ephemeral| ephemeral.get_mut("volumeClaimTemplate"));
    if let Some(Value::Object(spec)) = claim.and_then(|claim| claim.get_mut("spec")) {
        or_default(spec, "volumeMode", "Filesystem".into());
    }
}

/// An image without a tag, or of the tag `latest`, may change: it is always pulled.
fn pull_policy(image: &str) -> &'static str {
    if image.contains('@') || !is_image_name(image) {
        return "IfNotPresent";
    }
    let last = image.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        None | Some((_, "latest")) => "Always",
        Some(_) => "IfNotPresent",
    }
}

/// Whether a text names an image: of what is none, nobody knows whether it changes
/// (<https://pkg.go.dev/github.com/distribution/reference>).
fn is_image_name(image: &str) -> bool {
    let (path, tag) = match image.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (image, None),
    };
    let is_tag = |tag: &str| {
        (1..=128).contains(&tag.len())
            && !tag.starts_with(['.', '-'])
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    let (host, rest) = match path.split_once('/') {
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (Some(host), rest),
        _ => (None, path),
    };
    let is_host = |host: &str| {
        let (name, port) = host.split_once(':').unwrap_or((host, "0"));
        let is_label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && name.split('.').all(is_label)
    };
    // Letters and digits with one '.', one or two '_' or any '-' between them.
    let is_part = |part: &str| {
        let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let between = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        part.bytes().next().is_some_and(is_plain)
            && part.bytes().last().is_some_and(is_plain)
            && between
                .into_iter()
                .all(|gap| matches!(gap, "" | "." | "_" | "__") || gap.bytes().all(|b| b == b'-'))
    };
    path.len() <= 255 && tag.is_none_or(is_tag) && host.is_none_or(is_host) && rest.split('/').all(is_part)
}

fn or_default(fields: &mut Fields, field: &str, value: Value) {
    let current = fields.entry(field).or_insert(Value::Null);
    if current.is_null() || current == "" {
        *current = value;
    }
}

fn objects<'a>(fields: &'a mut Fields, list: &str) -> impl Iterator<Item = &'a mut Fields> {
    let list = fields.get_mut(list).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_that_may_change_are_always_pulled() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("repo/b@sha256:00", "IfNotPresent"),
            ("", "IfNotPresent"),
            ("Upper", "IfNotPresent"),
            ("a..b", "IfNotPresent"),
            ("host/a-b__c/d", "Always"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
