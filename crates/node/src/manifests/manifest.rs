//! One manifest as a pod.
//!
//! Follows the kubelet (`pkg/kubelet/config/common.go`), but for one thing: an unknown field is refused, where the kubelet passes
//! over it.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::api::core::v1::Pod;
use machinery::{Object, Resource};
use objects::{MANIFEST_HASH, MANIFEST_SOURCE, MIRROR, used_of_api};
use serde_json::{Value, json};

use crate::pods::SINGLE;

/// The priority of what a node can't do without (`system-node-critical`). A static pod has it on its own host, whatever its class is:
/// nobody else would start it again.
const NODE_CRITICAL: i64 = 2_000_001_000;
/// How many faults of one manifest are reported.
const MOST_FAULTS: usize = 10;

/// A pod that the host runs by itself.
#[derive(Debug, Clone)]
pub(crate) struct StaticPod {
    /// As it runs here. Its uid is the hash of what its manifest says, of the file and of the host.
    pub pod: Arc<Pod>,
    /// What shows it in the API, but for its owner.
    pub mirror: Arc<Object>,
}

impl StaticPod {
    /// Where its mirror lies in the store.
    pub(crate) fn key(&self) -> Bytes {
        objects::key("", "pods", self.mirror.namespace(), self.mirror.name()).into()
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// Why this host doesn't run it, for people.
    pub(super) fn read(text: &[u8], path: &Path, node: &str) -> Result<Self, String> {
        let resource = api::resource("", "v1", "pods").ok_or("this program knows no pods")?;
        let mut object = decode(resource, text)?;
        let hash = hash(&object, path, node);
        complete(&mut object, node, &hash)?;
        machinery::set_defaults(resource, &mut object).map_err(|status| status.message)?;
        machinery::prepare_create(resource, &mut object);
        let faults = machinery::validate_create(resource, &object);
        if !faults.is_empty() {
            let told =
                faults.iter().take(MOST_FAULTS).map(|cause| format!("{}: {}", cause.field, cause.message));
            return Err(told.collect::<Vec<_>>().join("; "));
        }
        let spec = object.0.get("spec").and_then(Value::as_object);
        if let Some(what) = spec.and_then(used_of_api) {
            return Err(format!("a static pod can't refer to {what}: the API may be away when it starts"));
        }
        let mut mirror = object.clone();
        mirror.0.remove("status");
        mirror.metadata_mut().remove("generation");
        annotate(&mut mirror, MIRROR, &hash);
        object.set_meta("uid", hash);
        if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
            spec.insert("priority".into(), NODE_CRITICAL.into());
        }
        let pod = serde_json::from_value(object.into_value()).map_err(|why| why.to_string())?;
        Ok(StaticPod { pod: Arc::new(pod), mirror: Arc::new(mirror) })
    }
}

fn decode(resource: &Resource, text: &[u8]) -> Result<Object, String> {
    let (value, mut faults) = values::yaml_and_duplicates(text).map_err(|why| why.to_string())?;
    let Value::Object(object) = value else { return Err("it is no object: write one Pod".into()) };
    let mut object = Object(object);
    faults.extend(machinery::check(resource, &mut object).map_err(|status| status.message)?);
    if faults.is_empty() {
        return Ok(object);
    }
    faults.truncate(MOST_FAULTS);
    Err(faults.join("; "))
}

/// The hash of a manifest, without the defaults that a version of this program fills in: an upgrade doesn't make it another pod.
fn hash(object: &Object, path: &Path, node: &str) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    context.update(Value::Object(object.0.clone()).to_string().as_bytes());
    context.update(format!("host:{node}").as_bytes());
    context.update(b"file:");
    context.update(path.as_os_str().as_encoded_bytes());
    context.finish().as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Fills in what makes it a pod of this host.
fn complete(object: &mut Object, node: &str, hash: &str) -> Result<(), String> {
    object.ensure_metadata();
    let name = match object.name() {
        "" => return Err("metadata.name: Required value: a static pod needs a name".into()),
        name => format!("{name}-{}", node.to_lowercase()),
    };
    if !object.uid().is_empty() {
        return Err("metadata.uid: a static pod's uid is the hash of its manifest: take it away".into());
    }
    if object.meta("annotations").is_some_and(|annotations| annotations[SINGLE] == "true") {
        return Err(format!(
            "metadata.annotations[{SINGLE}]: a static pod can't stop with its host's lease, since it runs without one: take it away"
        ));
    }
    if object.namespace().is_empty() {
        object.set_meta("namespace", "default");
    }
    object.set_meta("name", name);
    annotate(object, MANIFEST_HASH, hash);
    annotate(object, MANIFEST_SOURCE, "file");
    let Some(Value::Object(spec)) = object.0.get_mut("spec") else {
        return Err("spec: Required value: a pod needs containers".into());
    };
    match spec.get("nodeName").and_then(Value::as_str) {
        Some(other) if !other.is_empty() && other != node => {
            return Err(format!("spec.nodeName: {other:?} is not this host, {node:?}: take it away"));
        }
        _ => _ = spec.insert("nodeName".into(), node.into()),
    }
    let tolerations = spec.entry("tolerations").or_insert_with(|| json!([]));
    // Whatever is wrong with the node, nothing but its manifest ends it.
    let all = json!({"operator": "Exists", "effect": "NoExecute"});
    match tolerations {
        Value::Array(tolerations) if tolerations.contains(&all) => {}
        Value::Array(tolerations) => tolerations.push(all),
        other => *other = json!([all]),
    }
    Ok(())
}

fn annotate(object: &mut Object, name: &str, value: &str) {
    let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[name] = value.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<StaticPod, String> {
        StaticPod::read(text.as_bytes(), Path::new("/etc/holdfast/manifests/web.yaml"), "n1")
    }

    const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: kube-system}\n\
                       spec: {runtimeClassName: host, containers: [{name: main, command: [sleep, \"1\"]}]}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_host_and_a_mirror() {
        let web = read(WEB).unwrap();
        let (pod, hash) = (&web.pod, crate::pod::uid(&web.pod).to_owned());
        assert_eq!(crate::pod::subject(pod), "kube-system/web-n1");
        assert_eq!(hash.len(), 32);
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.priority), (Some("n1"), Some(2_000_001_000)));
        assert_eq!(spec.restart_policy.as_deref(), Some("Always"), "with the API's defaults");
        let toleration = &spec.tolerations.as_ref().unwrap()[0];
        assert_eq!(
            (toleration.operator.as_deref(), toleration.effect.as_deref()),
            (Some("Exists"), Some("NoExecute"))
        );
        let status = pod.status.as_ref().unwrap();
        assert_eq!(
            (status.phase.as_deref(), status.qos_class.as_deref()),
            (Some("Pending"), Some("BestEffort"))
        );
        let annotations = pod.metadata.annotations.as_ref().unwrap();
        assert_eq!((&annotations[MANIFEST_SOURCE], &annotations[MANIFEST_HASH]), (&"file".to_owned(), &hash));
        assert!(!annotations.contains_key(MIRROR), "only the mirror says that it is one");
        assert_eq!(web.mirror.meta("annotations").unwrap()[MIRROR], *hash);
        assert_eq!(web.mirror.uid(), "", "that is the API's to give");
        assert_eq!(web.mirror.pointer("/spec/priority"), None, "and so is its priority, by its class");
        assert_eq!(&web.key()[..], b"/registry/core/pods/kube-system/web-n1");
    }

    #[test]
    fn what_a_manifest_says_makes_its_hash_and_how_it_says_it_does_not() {
        let uid = |text: &str| crate::pod::uid(&read(text).unwrap().pod).to_owned();
        let json = r#"{"kind": "Pod", "metadata": {"namespace": "kube-system", "name": "web"}, "apiVersion": "v1",
            "spec": {"containers": [{"command": ["sleep", "1"], "name": "main"}], "runtimeClassName": "host"}}"#;
        assert_eq!(uid(WEB), uid(json));
        assert_ne!(uid(WEB), uid(&WEB.replace("\"1\"", "\"2\"")));
        let elsewhere = StaticPod::read(WEB.as_bytes(), Path::new("/other.yaml"), "n1").unwrap();
        let on_another = StaticPod::read(WEB.as_bytes(), Path::new("/other.yaml"), "n2").unwrap();
        assert_ne!(uid(WEB), crate::pod::uid(&elsewhere.pod));
        assert_ne!(crate::pod::uid(&on_another.pod), crate::pod::uid(&elsewhere.pod));
    }

    #[test]
    fn what_cannot_run_here_is_refused_with_the_reason() {
        let with = |from: &str, to: &str| {
            assert!(WEB.contains(from));
            read(&WEB.replace(from, to)).map(|pod| pod.mirror.clone()).unwrap_err()
        };
        for (from, to, why) in [
            ("kind: Pod", "kind: ConfigMap", "ConfigMap"),
            ("kind: Pod", "kind: Pod\n---\nkind: Pod", "more than one document"),
            ("kind: Pod", "kind: [[[", "yaml"),
            ("name: web, ", "", "needs a name"),
            ("name: web, ", "name: web, uid: x, ", "metadata.uid"),
            ("name: web, ", "name: Web_, ", "metadata.name"),
            ("name: web, ", "name: web, annotations: {holdfast.dev/single: \"true\"}, ", "host's lease"),
            ("name: main", "nmae: main", "unknown field \"spec.containers[0].nmae\""),
            ("name: main", "name: main, name: other", "already"),
            ("spec: {", "spec: {nodeName: n2, ", "is not this host"),
            ("spec: {", "spec: {serviceAccountName: boss, ", "a service account"),
            ("spec: {", "spec: {volumes: [{name: v, secret: {secretName: s}}], ", "secrets"),
            ("spec: {", "spec: {volumes: [{name: v, configMap: {name: s}}], ", "configmaps"),
            (
                "spec: {",
                "spec: {volumes: [{name: v, persistentVolumeClaim: {claimName: s}}], ",
                "persistentvolumeclaims",
            ),
            ("spec: {", "spec: {restartPolicy: Sometimes, ", "restartPolicy"),
        ] {
            let told = with(from, to);
            assert!(told.contains(why), "{to}: {told}");
        }
        assert!(read(&"[".repeat(10_000)).is_err(), "the depth is bounded");
    }
}
