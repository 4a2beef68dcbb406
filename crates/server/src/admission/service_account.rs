//! Pods run as a service account: it must be there, and its token, the authority's certificate and the
//! namespace's name are mounted where clients look for them.
//!
//! Follows `plugin/pkg/admission/serviceaccount` upstream.

use std::sync::Arc;
use std::time::Duration;

use machinery::{Object, Status};
use objects::{MIRROR, look};
use serde_json::{Map, Value, json};
use store::{State, Store};

use super::request::{AdmissionRequest, Operation};
use crate::clock::Edge;

/// The service account of pods that name none.
pub(crate) const DEFAULT: &str = "default";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const VOLUME: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// An hour, and a little more: a pod that renews in time never has one that has just expired.
///
/// The number is upstream's `WarnOnlyBoundTokenExpirationPeriod`, and is a sign as well: tokens that are asked for with
/// exactly it live longer (`access::tokens`), for clients that read their file only once.
const TOKEN_SECONDS: i64 = 3607;
/// How long a new pod waits for the account that every new namespace gets.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Waits a little for the default account where a pod needs it and its namespace is so new that it has none yet.
pub(crate) async fn wait_for_default(store: &dyn Store, namespace: &str, pod: &Object) {
    let Some(Value::Object(spec)) = pod.0.get("spec") else { return };
    let of_namespace = objects::key("", "namespaces", "", namespace);
    let of_account = objects::key("", "serviceaccounts", namespace, DEFAULT);
    let missing = |state: &State| {
        state.get(of_account.as_bytes()).is_none() && state.get(of_namespace.as_bytes()).is_some()
    };
    if account(spec) != DEFAULT || is_mirror(pod) || !missing(&store.snapshot()) {
        return;
    }
    let mut states = store.states();
    // Whether it came in time shows when the pod is looked at.
    let _ = tokio::time::timeout(PATIENCE, states.wait_for(|state| !missing(state))).await;
}

/// Gives a new pod its account and what goes with that.
pub(super) fn complete(request: &AdmissionRequest<'_>, pod: &mut Object) -> Result<(), Status> {
    if is_mirror(pod) {
        return Ok(());
    }
    let Some(Value::Object(spec)) = pod.0.get_mut("spec") else { return Ok(()) };
    let name = account(spec).to_owned();
    // `serviceAccount` is the deprecated name; both are kept the same.
    spec.insert("serviceAccountName".into(), json!(name));
    spec.insert("serviceAccount".into(), json!(name));
    let account = find(request, &name)?;
    let automount = |value: Option<&Value>| value.and_then(Value::as_bool);
    let own = automount(spec.get("automountServiceAccountToken"));
    if own.or(automount(account.0.get("automountServiceAccountToken"))).unwrap_or(true) {
        mount_token(spec, request.edge);
    }
    let secrets = |list: Option<&Value>| list.and_then(Value::as_array).is_some_and(|list| !list.is_empty());
    if !secrets(spec.get("imagePullSecrets")) && secrets(account.0.get("imagePullSecrets")) {
        spec.insert("imagePullSecrets".into(), account.0["imagePullSecrets"].clone());
    }
    Ok(())
}

/// 403 if a pod uses secrets that its account keeps from it, or a mirror of a host's own pod uses anything.
pub(super) fn check(request: &AdmissionRequest<'_>, pod: &Object) -> Result<(), Status> {
    let concerned = match request.operation {
        Operation::Create => request.subresource.is_empty(),
        Operation::Update => request.subresource == "ephemeralcontainers",
        Operation::Delete | Operation::Connect => false,
    };
    let Some(Value::Object(spec)) = pod.0.get("spec").filter(|_| concerned) else { return Ok(()) };
    if is_mirror(pod) && request.operation == Operation::Create {
        return check_mirror(request, spec);
    }
    let account = find(request, account(spec))?;
    let enforced = account.meta("annotations").and_then(|annotations| annotations.get(ENFORCE));
    if !enforced.and_then(Value::as_str).is_some_and(|text| text.parse() == Ok(true)) {
        return Ok(());
    }
    let names = |list: &str| -> Vec<&str> {
        let list = account.0.get(list).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
    };
    let may = names("secrets");
    for volume in list(spec, "volumes") {
        if let Some(secret) = volume["secret"]["secretName"].as_str().filter(|name| !may.contains(name)) {
            let name = account.name();
            let why = format!(
                "volume with secret.secretName={secret:?} is not allowed because service account {name} does \
                 not reference that secret"
            );
            return Err(request.named.forbidden(&why));
        }
    }
    for field in ["initContainers", "containers", "ephemeralContainers"] {
        for container in list(spec, field) {
            let env = container["env"].as_array().into_iter().flatten();
            let from = container["envFrom"].as_array().into_iter().flatten();
            let by_key = env.filter_map(|env| env["valueFrom"]["secretKeyRef"]["name"].as_str());
            let mut used = by_key.chain(from.filter_map(|from| from["secretRef"]["name"].as_str()));
            if let Some(secret) = used.find(|name| !may.contains(name)) {
                let (what, name) = (container["name"].as_str().unwrap_or_default(), account.name());
                let why = format!(
                    "container {what} with secret {secret:?} in its environment is not allowed because service \
                     account {name} does not reference that secret"
                );
                return Err(request.named.forbidden(&why));
            }
        }
    }
    let pulls = names("imagePullSecrets");
    for secret in list(spec, "imagePullSecrets").iter().filter_map(|secret| secret["name"].as_str()) {
        if !pulls.contains(&secret) {
            let name = account.name();
            let why = format!(
                "imagePullSecrets[].name={secret:?} is not allowed because service account {name} does not \
                 reference that imagePullSecret"
            );
            return Err(request.named.forbidden(&why));
        }
    }
    Ok(())
}

/// Nobody vouches for what a host says of its own pods: they get nothing of the API's.
fn check_mirror(request: &AdmissionRequest<'_>, spec: &Map<String, Value>) -> Result<(), Status> {
    if spec.get("serviceAccountName").and_then(Value::as_str).is_some_and(|name| !name.is_empty()) {
        return Err(request.named.forbidden("a mirror pod may not reference service accounts"));
    }
    let uses = |volume: &Value, source: &str| volume[source].is_object();
    for volume in list(spec, "volumes") {
        let within = volume["projected"]["sources"].as_array().into_iter().flatten();
        let tokens = within.clone().any(|source| uses(source, "serviceAccountToken"));
        let why = if uses(volume, "secret") || within.clone().any(|source| uses(source, "secret")) {
            "a mirror pod may not reference secrets"
        } else if tokens {
            "a mirror pod may not use ServiceAccountToken volume projections"
        } else if uses(volume, "persistentVolumeClaim") {
            "a mirror pod may not reference persistentvolumeclaims"
        } else {
            continue;
        };
        return Err(request.named.forbidden(why));
    }
    Ok(())
}

fn find(request: &AdmissionRequest<'_>, name: &str) -> Result<Arc<Object>, Status> {
    let namespace = request.named.namespace;
    let key = objects::key("", "serviceaccounts", namespace, name);
    match request.state.get(key.as_bytes()) {
        Some(kv) => look(kv),
        None => {
            let why = format!(
                "error looking up service account {namespace}/{name}: serviceaccount {name:?} not found"
            );
            Err(request.named.forbidden(&why))
        }
    }
}

/// Whether a pod says that it mirrors one which its host runs by itself.
pub(super) fn is_mirror(pod: &Object) -> bool {
    pod.meta("annotations").is_some_and(|annotations| !annotations[MIRROR].is_null())
}

fn account(spec: &Map<String, Value>) -> &str {
    let given = ["serviceAccountName", "serviceAccount"].into_iter();
    let mut names = given.filter_map(|field| spec.get(field)?.as_str()).filter(|name| !name.is_empty());
    names.next().unwrap_or(DEFAULT)
}

fn list<'a>(spec: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    spec.get(field).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Mounts the token and its like into every container that has nothing at their place.
fn mount_token(spec: &mut Map<String, Value>, edge: &dyn Edge) {
    let name =
        |volume: &Value| volume["name"].as_str().filter(|name| name.starts_with(VOLUME)).map(str::to_owned);
    let there = list(spec, "volumes").iter().find_map(name);
    let is_there = there.is_some();
    let name = there.unwrap_or_else(|| edge.name(VOLUME));
    let mount = json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH});
    let mut needed = false;
    for field in ["initContainers", "containers"] {
        let containers = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
            let mounts = container.entry("volumeMounts").or_insert_with(|| json!([]));
            if mounts.is_null() {
                *mounts = json!([]);
            }
            let Some(mounts) = mounts.as_array_mut() else { continue };
            if mounts.iter().all(|mount| mount["mountPath"] != MOUNT_PATH) {
                mounts.push(mount.clone());
                needed = true;
            }
        }
    }
    if is_there || !needed {
        return;
    }
    let volume = json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [
            {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
        ]}},
    ]}});
    let volumes = spec.entry("volumes").or_insert_with(|| json!([]));
    if volumes.is_null() {
        *volumes = json!([]);
    }
    if let Value::Array(volumes) = volumes {
        volumes.push(volume);
    }
}
