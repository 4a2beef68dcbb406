//! The pods that hosts run by themselves (static pods), and the mirrors that show them in the API
//! (`pkg/kubelet/types/pod_update.go`).

use serde_json::{Map, Value};

/// The annotation of a mirror, with the hash of the pod that it mirrors.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// The annotation of a static pod with the hash of its manifest.
pub const MANIFEST_HASH: &str = "kubernetes.io/config.hash";
/// The annotation that says where a static pod comes from.
pub const MANIFEST_SOURCE: &str = "kubernetes.io/config.source";

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

/// What kind of the API's objects the spec of a pod refers to that no static pod may use, if it does
/// (`podutil.HasAPIObjectReference`).
pub fn used_of_api(spec: &Map<String, Value>) -> Option<&'static str> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_uses_of_the_api_is_found_wherever_it_stands() {
        let container = |field: &str, value: Value| json!({"containers": [{"name": "a", (field): value}]});
        let volume = |source: Value| json!({"volumes": [source]});
        for (spec, found) in [
            (json!({"serviceAccountName": "a"}), Some("a service account")),
            (json!({"serviceAccountName": "", "runtimeClassName": "host"}), None),
            (json!({"imagePullSecrets": [{"name": "s"}]}), Some("secrets")),
            (json!({"resourceClaims": [{"name": "s"}]}), Some("resourceclaims")),
            (volume(json!({"projected": {"sources": [{"configMap": {"name": "a"}}]}})), Some("configmaps")),
            (volume(json!({"persistentVolumeClaim": {"claimName": "a"}})), Some("persistentvolumeclaims")),
            (volume(json!({"csi": {"driver": "d", "nodePublishSecretRef": {"name": "a"}}})), Some("secrets")),
            (volume(json!({"hostPath": {"path": "/"}})), None),
            (container("envFrom", json!([{"secretRef": {"name": "a"}}])), Some("secrets")),
            (
                container("env", json!([{"valueFrom": {"configMapKeyRef": {"name": "a"}}}])),
                Some("configmaps"),
            ),
            (container("env", json!([{"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}])), None),
        ] {
            assert_eq!(used_of_api(spec.as_object().unwrap()), found, "{spec}");
        }
    }
}
