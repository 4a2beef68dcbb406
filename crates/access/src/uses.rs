//! What the pods of each host use: secrets, claims and their like. Kept from the store's changes, so that a decision
//! costs what it asks, and not what there is.
//!
//! Follows upstream's graph (`plugin/pkg/auth/authorizer/node/graph.go`). Between a host and what it may read there
//! stands here a count of pods; from a volume to its claim leads the volume itself.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use store::{KeyRange, KeyValue, Revision, State};

const PODS: &str = "/registry/core/pods/";

/// Kinds of what a pod uses by name, in its own namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum UsedKind {
    Secret,
    ConfigMap,
    VolumeClaim,
    ServiceAccount,
    ResourceClaim,
}

/// An object that pods use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Used {
    kind: UsedKind,
    namespace: Arc<str>,
    name: Arc<str>,
}

/// A pod that was placed, as of the revision that wrote it.
#[derive(Debug)]
struct Pod {
    revision: Revision,
    host: Arc<str>,
    used: Box<[Used]>,
}

/// What the pods of each host use, as of a revision.
///
/// `by_host` counts exactly what the pods in `pods` use; what no pod of a host uses any more isn't there.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    revision: Revision,
    pods: HashMap<Bytes, Pod>,
    /// By host, how many of its pods use an object.
    by_host: HashMap<Arc<str>, HashMap<Used, usize>>,
}

impl Uses {
    /// The revision that this is of.
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// Whether a pod on the host uses the object.
    pub(crate) fn holds(&self, host: &str, kind: UsedKind, namespace: &str, name: &str) -> bool {
        let used = || Used { kind, namespace: namespace.into(), name: name.into() };
        self.by_host.get(host).is_some_and(|uses| uses.contains_key(&used()))
    }

    /// Follows the store to `state`: by its history, or, where that doesn't reach back, by all pods, of which only those
    /// are read that changed.
    pub(crate) fn follow(&mut self, state: &State) {
        if state.revision() <= self.revision {
            return;
        }
        let from = self.revision.next();
        if self.revision > Revision::ZERO && state.check_history(from).is_ok() {
            // A pod that changed several times is read once.
            let keys: HashSet<&Bytes> = state.events(from).map(|event| event.key()).collect();
            for key in keys.into_iter().filter(|key| key.starts_with(PODS.as_bytes())) {
                match state.get(key) {
                    Some(kv) => self.put(kv),
                    None => self.remove(key),
                }
            }
        } else {
            let gone: Vec<Bytes> = self.pods.keys().filter(|key| state.get(key).is_none()).cloned().collect();
            gone.iter().for_each(|key| self.remove(key));
            state.range(&KeyRange::prefix(PODS)).for_each(|kv| self.put(kv));
        }
        self.revision = state.revision();
    }

    fn put(&mut self, kv: &KeyValue) {
        if self.pods.get(&kv.key).is_some_and(|known| known.revision == kv.mod_revision) {
            return;
        }
        self.remove(&kv.key);
        let Some(place) = objects::parse(&kv.key) else { return };
        // What can't be read uses nothing, nor does what has no host.
        let Ok(stored) = serde_json::from_slice::<StoredPod>(&kv.value.bytes()) else { return };
        let Some(host) = stored.spec.node_name.as_deref().filter(|host| !host.is_empty()) else { return };
        let host: Arc<str> =
            self.by_host.get_key_value(host).map_or_else(|| host.into(), |(host, _)| host.clone());
        let uses = self.by_host.entry(host.clone()).or_default();
        let namespace: Arc<str> = place.namespace.into();
        let mut all = HashSet::new();
        stored.each_used(place.name, &mut |kind, name| {
            all.insert(Used { kind, namespace: namespace.clone(), name: name.into() });
        });
        // What other pods of the host use as well is kept once.
        let shared = |used: Used| uses.get_key_value(&used).map(|(known, _)| known.clone()).unwrap_or(used);
        let used: Box<[Used]> = all.into_iter().map(shared).collect();
        for one in &used {
            *uses.entry(one.clone()).or_default() += 1;
        }
        self.pods.insert(kv.key.clone(), Pod { revision: kv.mod_revision, host, used });
    }

    fn remove(&mut self, key: &Bytes) {
        let Some(Pod { host, used, .. }) = self.pods.remove(key) else { return };
        let Some(uses) = self.by_host.get_mut(&host) else { return };
        for one in &used {
            if let Some(count) = uses.get_mut(one) {
                *count -= 1;
                if *count == 0 {
                    uses.remove(one);
                }
            }
        }
        if uses.is_empty() {
            self.by_host.remove(&host);
        }
    }
}

/// The fields of a pod that say what it uses.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StoredPod {
    metadata: Metadata,
    spec: Spec,
    status: Option<Status>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    annotations: Option<Annotations>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Annotations {
    /// What a host says of pods that it runs by itself.
    #[serde(rename = "kubernetes.io/config.mirror")]
    mirror: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
    service_account_name: Option<String>,
    volumes: Option<Vec<Map<String, Value>>>,
    image_pull_secrets: Option<Vec<Reference>>,
    resource_claims: Option<Vec<Claim>>,
    containers: Option<Vec<Container>>,
    init_containers: Option<Vec<Container>>,
    ephemeral_containers: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    resource_claim_statuses: Option<Vec<Claim>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reference {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Claim {
    resource_claim_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    env: Option<Vec<Variable>>,
    env_from: Option<Vec<Source>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Option<Source>,
}

/// Where a variable's value comes from, or many variables.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Source {
    #[serde(alias = "secretRef")]
    secret_key_ref: Option<Reference>,
    #[serde(alias = "configMapRef")]
    config_map_key_ref: Option<Reference>,
}

impl StoredPod {
    /// Calls `found` for all that the pod of that name uses.
    fn each_used(&self, pod: &str, found: &mut dyn FnMut(UsedKind, &str)) {
        // A host makes these itself: they give it nothing, whatever they say.
        if self.metadata.annotations.as_ref().is_some_and(|annotations| annotations.mirror.is_some()) {
            return;
        }
        let mut add = |kind: UsedKind, name: Option<&str>| {
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                found(kind, name);
            }
        };
        let spec = &self.spec;
        add(UsedKind::ServiceAccount, spec.service_account_name.as_deref());
        for secret in spec.image_pull_secrets.iter().flatten() {
            add(UsedKind::Secret, secret.name.as_deref());
        }
        let of_status = self.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
        for claim in spec.resource_claims.iter().chain(of_status).flatten() {
            add(UsedKind::ResourceClaim, claim.resource_claim_name.as_deref());
        }
        let containers = [&spec.containers, &spec.init_containers, &spec.ephemeral_containers];
        for container in containers.into_iter().flatten().flatten() {
            let env = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
            for source in env.chain(container.env_from.iter().flatten()) {
                let name =
                    |reference: &'_ Option<Reference>| reference.as_ref().and_then(|it| it.name.clone());
                add(UsedKind::Secret, name(&source.secret_key_ref).as_deref());
                add(UsedKind::ConfigMap, name(&source.config_map_key_ref).as_deref());
            }
        }
        for volume in spec.volumes.iter().flatten() {
            each_of_volume(pod, volume, &mut add);
        }
    }
}

fn each_of_volume(pod: &str, volume: &Map<String, Value>, add: &mut dyn FnMut(UsedKind, Option<&str>)) {
    let generated =
        || objects::ephemeral_claim(pod, volume.get("name").and_then(Value::as_str).unwrap_or_default());
    for (kind, source) in volume {
        let name = |pointer: &str| source.pointer(pointer).and_then(Value::as_str);
        match kind.as_str() {
            "configMap" => add(UsedKind::ConfigMap, name("/name")),
            "persistentVolumeClaim" => add(UsedKind::VolumeClaim, name("/claimName")),
            "ephemeral" if source.is_object() => add(UsedKind::VolumeClaim, Some(generated().as_str())),
            "projected" => {
                for source in source["sources"].as_array().into_iter().flatten() {
                    add(UsedKind::Secret, source["secret"]["name"].as_str());
                    add(UsedKind::ConfigMap, source["configMap"]["name"].as_str());
                }
            }
            _ => {}
        }
        // Volumes of many kinds name secrets, in one of these ways.
        for pointer in ["/secretName", "/secretRef/name", "/nodePublishSecretRef/name"] {
            add(UsedKind::Secret, name(pointer));
        }
    }
}

#[cfg(test)]
mod agreement;
