//! Which kinds the API serves and where their objects lie, as far as the state tells: what is part of the program,
//! what definitions add, and what other servers answer for.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{resource_of_kind, resources};
use bytes::Bytes;
use machinery::Definition;
use objects::kind_prefix;
use serde::Deserialize;
use store::{Event, KeyValue};

/// Where the objects of a kind lie in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lies {
    /// The group under which they are stored.
    pub group: &'static str,
    /// The resource under which they are stored.
    pub plural: &'static str,
    /// Whether they lie in namespaces.
    pub namespaced: bool,
}

/// What the state says of kinds, kept up to date change by change.
#[derive(Debug)]
pub struct Kinds {
    definitions: String,
    services: String,
    custom: BTreeMap<Bytes, Defined>,
    remote: BTreeMap<Bytes, Remote>,
}

#[derive(Debug)]
struct Defined {
    group: &'static str,
    served: Vec<(String, &'static str, Lies)>,
}

/// A group and version that another server answers for: what its kinds are and which objects there are, only that
/// server knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Its group and version, such as `metrics.k8s.io/v1beta1`.
    pub api_version: String,
    /// Whether it answers, as its APIService says.
    pub available: bool,
}

#[derive(Deserialize)]
struct ApiService {
    spec: ApiServiceSpec,
    #[serde(default)]
    status: ApiServiceStatus,
}

#[derive(Deserialize)]
struct ApiServiceSpec {
    #[serde(default)]
    group: String,
    version: String,
    service: Option<serde::de::IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiServiceStatus {
    conditions: Vec<ApiServiceCondition>,
}

#[derive(Deserialize)]
struct ApiServiceCondition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Default for Kinds {
    fn default() -> Self {
        Kinds {
            definitions: kind_prefix("apiextensions.k8s.io", "customresourcedefinitions"),
            services: kind_prefix("apiregistration.k8s.io", "apiservices"),
            custom: BTreeMap::new(),
            remote: BTreeMap::new(),
        }
    }
}

impl Kinds {
    /// Where the objects of a kind lie; nothing if the API doesn't serve it, or another server does.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<Lies> {
        if let Some(resource) = resource_of_kind(api_version, kind) {
            // What is answered and not stored can't be looked up.
            let (group, plural) = resource.stored_under();
            return resource.has_verb("get").then_some(Lies {
                group,
                plural,
                namespaced: resource.namespaced,
            });
        }
        if self.remote.values().any(|remote| remote.api_version == api_version) {
            return None;
        }
        let (group, _) = api_version.split_once('/')?;
        let defined = self.custom.values().filter(|defined| defined.group == group);
        let mut served = defined.flat_map(|defined| &defined.served);
        served.find(|(version, name, _)| version == api_version && *name == kind).map(|(_, _, lies)| *lies)
    }

    /// The groups and versions that other servers answer for and don't at present.
    pub fn unavailable(&self) -> impl Iterator<Item = &str> {
        self.remote.values().filter(|remote| !remote.available).map(|remote| remote.api_version.as_str())
    }

    /// Takes one change in; if it changes what is known of kinds, the groups that it is about.
    pub fn apply(&mut self, event: &Event) -> Vec<String> {
        match event {
            Event::Put { current, .. } => self.put(current),
            Event::Delete { previous, .. } => self.remove(&previous.key),
        }
    }

    /// Takes an object in, of whatever kind; the groups that it is about, if it tells of kinds.
    pub fn put(&mut self, kv: &KeyValue) -> Vec<String> {
        if !self.tells(&kv.key) {
            return Vec::new();
        }
        let mut groups = self.remove(&kv.key);
        if kv.key.starts_with(self.definitions.as_bytes()) {
            if let Ok(definition) = Definition::parse(kv.value.bytes(), kv.mod_revision.0, None) {
                let defined = Defined::of(&Arc::new(definition));
                groups.push(defined.group.to_owned());
                self.custom.insert(kv.key.clone(), defined);
            }
        } else if let Some((group, remote)) = Remote::read(kv) {
            groups.push(group);
            self.remote.insert(kv.key.clone(), remote);
        }
        groups.dedup();
        groups
    }

    fn tells(&self, key: &[u8]) -> bool {
        key.starts_with(self.definitions.as_bytes()) || key.starts_with(self.services.as_bytes())
    }

    fn remove(&mut self, key: &[u8]) -> Vec<String> {
        let custom = self.custom.remove(key).map(|defined| defined.group.to_owned());
        let remote = self.remote.remove(key);
        let remote =
            remote.and_then(|remote| remote.api_version.split_once('/').map(|(group, _)| group.to_owned()));
        custom.into_iter().chain(remote).collect()
    }
}

impl Defined {
    fn of(definition: &Arc<Definition>) -> Self {
        let served = definition.resources();
        let served = served.iter().filter(|resource| !is_built_in(resource.group, resource.version));
        let served = served.map(|resource| {
            let lies =
                Lies { group: resource.group, plural: resource.plural, namespaced: resource.namespaced };
            (resource.api_version(), resource.kind, lies)
        });
        Defined { group: definition.group(), served: served.collect() }
    }
}

impl Remote {
    /// The group of an APIService, and what it says of another server; nothing if it stands for what is served here.
    fn read(kv: &KeyValue) -> Option<(String, Remote)> {
        let ApiService { spec, status } = serde_json::from_slice(&kv.value.bytes()).ok()?;
        spec.service?;
        let available = status.conditions.iter().any(|c| c.kind == "Available" && c.status == "True");
        let api_version = format!("{}/{}", spec.group, spec.version);
        let taken = spec.group.is_empty() || is_built_in(&spec.group, &spec.version);
        (!taken).then_some((spec.group, Remote { api_version, available }))
    }
}

/// Whether a group and version is part of the program: then it is whole, and nothing adds to it.
fn is_built_in(group: &str, version: &str) -> bool {
    resources().any(|resource| resource.group == group && resource.version == version)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::{Memory, Revision, Store, Txn};

    use super::*;

    async fn of(objects: &[(&str, &str, Value)]) -> Kinds {
        let store = Memory::default();
        for (group, plural, object) in objects {
            let key = objects::key(group, plural, "", object["metadata"]["name"].as_str().unwrap());
            store.txn(Txn::put(key, object.to_string())).await.unwrap();
        }
        let mut kinds = Kinds::default();
        store.snapshot().events(Revision::ZERO).for_each(|event| drop(kinds.apply(event)));
        kinds
    }

    fn definition(established: &str) -> (&'static str, &'static str, Value) {
        let version =
            |name: &str, served: bool| json!({"name": name, "served": served, "storage": name == "v1"});
        let definition = json!({
            "metadata": {"name": "gizmos.bug.io"},
            "spec": {"group": "bug.io", "scope": "Namespaced",
                "names": {"plural": "gizmos", "kind": "Gizmo"},
                "versions": [version("v1", true), version("v2", false)]},
            "status": {"acceptedNames": {}, "conditions": [{"type": "Established", "status": established}]},
        });
        ("apiextensions.k8s.io", "customresourcedefinitions", definition)
    }

    fn service(version: &str, service: Value, available: &str) -> (&'static str, &'static str, Value) {
        let service = json!({
            "metadata": {"name": format!("{version}.bug.io")},
            "spec": {"group": "bug.io", "version": version, "service": service},
            "status": {"conditions": [{"type": "Available", "status": available}]},
        });
        ("apiregistration.k8s.io", "apiservices", service)
    }

    #[tokio::test]
    async fn a_kind_is_known_in_the_versions_that_are_served_here() {
        let kinds = of(&[definition("True"), service("v1", Value::Null, "True")]).await;
        let gizmo = Some(Lies { group: "bug.io", plural: "gizmos", namespaced: true });
        assert_eq!(kinds.find("bug.io/v1", "Gizmo"), gizmo);
        for (api_version, kind) in
            [("bug.io/v2", "Gizmo"), ("bug.io/v1", "Other"), ("apps/v1beta1", "Deployment"), ("nope", "Foo")]
        {
            assert_eq!(kinds.find(api_version, kind), None, "{api_version} {kind}");
        }
        let node = Some(Lies { group: "", plural: "nodes", namespaced: false });
        assert_eq!(kinds.find("v1", "Node"), node);
        let review = kinds.find("authentication.k8s.io/v1", "TokenReview");
        assert_eq!(review, None, "nobody can look one up");
        assert_eq!(of(&[definition("False")]).await.find("bug.io/v1", "Gizmo"), None);
    }

    #[tokio::test]
    async fn what_another_server_answers_for_is_not_known_here() {
        let other = json!({"namespace": "d", "name": "s"});
        for (available, unavailable) in [("True", vec![]), ("False", vec!["bug.io/v1"])] {
            let kinds = of(&[definition("True"), service("v1", other.clone(), available)]).await;
            assert_eq!(kinds.find("bug.io/v1", "Gizmo"), None);
            assert_eq!(kinds.unavailable().collect::<Vec<_>>(), unavailable);
        }
    }
}
