//! Pods that a host makes: the mirrors of those that it runs by itself, which use nothing of the API's. Whatever pods on a
//! host use, its agent may read, so it must not choose.

use machinery::{Object, Status};
use objects::look;
use serde_json::{Map, Value};

use super::super::request::AdmissionRequest;
use super::super::service_account::{MIRROR, is_mirror};

/// Kinds of volumes whose source names a secret in a field of its own, beside those that have a reference to one.
const NAMED_SECRETS: [(&str, &str); 2] = [("secret", "secretName"), ("azureFile", "secretName")];
const SECRET_REFERENCES: [&str; 6] = [
    "secretRef",
    "nodePublishSecretRef",
    "nodeStageSecretRef",
    "controllerPublishSecretRef",
    "nodeExpandSecretRef",
    "controllerExpandSecretRef",
];

/// 403 unless a pod is the mirror of one that the host runs by itself.
pub(super) fn check(node: &str, request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let refused = |why: String| Err(request.named.forbidden(&why));
    if !is_mirror(pod) {
        return refused(format!(
            "pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if pod.pointer("/spec/nodeName").and_then(Value::as_str) != Some(node) {
        return refused(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    check_owner(node, request, pod)?;
    let empty = Map::new();
    let spec = pod.0.get("spec").and_then(Value::as_object).unwrap_or(&empty);
    match referenced(spec) {
        Some(what) => refused(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

/// The one owner of a mirror is the node itself, the very one that is there.
fn check_owner(node: &str, request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let refused = |why: String| Err(request.named.forbidden(&why));
    let owners = pod.meta("ownerReferences").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let owner = match owners {
        [] => {
            return refused(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        [owner] => owner,
        _ => {
            return refused(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"] != node {
        return refused(format!("node {node:?} can only create pods with an owner reference set to itself"));
    }
    if owner["controller"] != true {
        return refused(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return refused(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let key = objects::key("", "nodes", "", node);
    let kv = request.state.get(key.as_bytes()).ok_or_else(|| Status::not_found("", "nodes", node))?;
    let (found, given) = (look(kv)?, owner["uid"].as_str().unwrap_or_default());
    if given != found.uid() {
        return refused(format!("node {node} UID mismatch: expected {given} got {}", found.uid()));
    }
    Ok(())
}

/// What kind of objects a pod uses that it must not.
fn referenced(spec: &Map<String, Value>) -> Option<&'static str> {
    let named = |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if named(spec.get("serviceAccountName")) || named(spec.get("serviceAccount")) {
        return Some("a service account");
    }
    if !list(spec.get("imagePullSecrets")).is_empty() {
        return Some("secrets");
    }
    if !list(spec.get("resourceClaims")).is_empty() {
        return Some("resourceclaims");
    }
    for volume in list(spec.get("volumes")) {
        let projected = list(volume.get("projected").and_then(|projected| projected.get("sources")));
        let parts = || std::iter::once(volume).chain(projected);
        let has = |source: &str| parts().any(|part| part[source].is_object());
        if has("secret") || names_secret(volume) {
            return Some("secrets");
        }
        if has("configMap") {
            return Some("configmaps");
        }
        if has("serviceAccountToken") {
            return Some("a service account");
        }
        if has("clusterTrustBundle") {
            return Some("clustertrustbundles");
        }
        // The claim of an ephemeral volume is made in the pod's name.
        if has("persistentVolumeClaim") || has("ephemeral") {
            return Some("persistentvolumeclaims");
        }
        if has("podCertificate") {
            return Some("podcertificaterequests");
        }
    }
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    for container in containers.iter().flat_map(|field| list(spec.get(*field))) {
        let (env, from) = (list(container.get("env")), list(container.get("envFrom")));
        let uses = |key: &str, all: &str| {
            env.iter().any(|env| env["valueFrom"][key].is_object())
                || from.iter().any(|from| from[all].is_object())
        };
        if uses("secretKeyRef", "secretRef") {
            return Some("secrets");
        }
        if uses("configMapKeyRef", "configMapRef") {
            return Some("configmaps");
        }
    }
    None
}

/// Whether a volume of a driver's or a storage system's names a secret.
fn names_secret(volume: &Value) -> bool {
    NAMED_SECRETS.iter().any(|(kind, field)| volume[*kind][*field].is_string())
        || volume
            .as_object()
            .into_iter()
            .flatten()
            .any(|(_, source)| SECRET_REFERENCES.iter().any(|reference| source[*reference].is_object()))
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
