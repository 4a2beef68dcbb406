//! Who owns whom: the metadata of every object in the store, whatever its kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{Subject, parse};
use serde::Deserialize;
use store::{Event, KeyRange, KeyValue, State};

/// What ownership needs to know about an object.
#[derive(Debug, Clone, Default)]
pub struct Node {
    /// Its key in the store.
    pub key: Bytes,
    /// Its group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty for cluster-scoped ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The revision that last wrote it.
    pub revision: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    uid: String,
    owner_references: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deletion_timestamp: Option<String>,
}

impl Node {
    fn read(kv: &KeyValue) -> Option<Node> {
        let place = parse(&kv.key)?;
        let stored: Stored = serde_json::from_slice(&kv.value).ok()?;
        Some(Node {
            key: kv.key.clone(),
            api_version: stored.api_version,
            kind: stored.kind,
            namespace: place.namespace.to_owned(),
            name: place.name.to_owned(),
            uid: stored.metadata.uid,
            owners: stored.metadata.owner_references,
            finalizers: stored.metadata.finalizers,
            deleting: stored.metadata.deletion_timestamp.is_some(),
            revision: kv.mod_revision,
        })
    }

    /// The object's name for a write.
    pub fn subject(&self) -> Subject {
        Subject {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// Whether it has this finalizer.
    pub fn has_finalizer(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Whether it waits for its dependents to be deleted first.
    pub fn waits_for_dependents(&self) -> bool {
        self.deleting && self.has_finalizer("foregroundDeletion")
    }
}

/// The ownership between all objects.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<Bytes, Arc<Node>>,
    by_uid: HashMap<String, Bytes>,
    dependents: HashMap<String, BTreeSet<Bytes>>,
    namespaces: BTreeMap<String, BTreeSet<Bytes>>,
}

impl Graph {
    /// The graph of a state.
    pub fn load(state: &State) -> Self {
        let mut graph = Graph::default();
        for kv in state.range(&KeyRange::prefix("/registry/")) {
            graph.put(kv);
        }
        graph
    }

    /// Takes one change in: the object before and now.
    pub fn apply(&mut self, event: &Event) -> (Option<Arc<Node>>, Option<Arc<Node>>) {
        match event {
            Event::Put { current, .. } => self.put(current),
            Event::Delete { previous, .. } => (self.remove(&previous.key), None),
        }
    }

    fn put(&mut self, kv: &KeyValue) -> (Option<Arc<Node>>, Option<Arc<Node>>) {
        let old = self.remove(&kv.key);
        let Some(node) = Node::read(kv).map(Arc::new) else {
            return (old, None);
        };
        if !node.uid.is_empty() {
            self.by_uid.insert(node.uid.clone(), node.key.clone());
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.key.clone());
        }
        self.namespaces.entry(node.namespace.clone()).or_default().insert(node.key.clone());
        self.nodes.insert(node.key.clone(), node.clone());
        (old, Some(node))
    }

    fn remove(&mut self, key: &Bytes) -> Option<Arc<Node>> {
        let node = self.nodes.remove(key)?;
        if self.by_uid.get(&node.uid) == Some(key) {
            self.by_uid.remove(&node.uid);
        }
        for owner in &node.owners {
            if let Some(keys) = self.dependents.get_mut(&owner.uid) {
                keys.remove(key);
                if keys.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
        if let Some(keys) = self.namespaces.get_mut(&node.namespace) {
            keys.remove(key);
            if keys.is_empty() {
                self.namespaces.remove(&node.namespace);
            }
        }
        Some(node)
    }

    /// The object at a key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Node>> {
        self.nodes.get(key)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// The owner that a reference of `dependent` means, if it exists: same uid, kind and name, and in the
    /// same namespace or in none.
    pub fn owner(&self, dependent: &Node, reference: &OwnerReference) -> Option<&Arc<Node>> {
        let owner = self.nodes.get(self.by_uid.get(&reference.uid)?)?;
        let reachable = owner.namespace.is_empty() || owner.namespace == dependent.namespace;
        (reachable && owner.kind == reference.kind && owner.name == reference.name).then_some(owner)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<Node>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|key| self.nodes.get(key))
    }

    /// The objects in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Node>> {
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|key| self.nodes.get(key))
    }
}
