//! Which object owns which: the metadata of every object in the store, whatever its kind.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{TypedRef, Uid, key, parse};
use serde::Deserialize;
use store::{Event, KeyRange, KeyValue, State};

use crate::kinds::Kinds;

/// What ownership needs to know about an object.
#[derive(Debug, Clone, Default)]
pub struct Vertex {
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
    pub uid: Uid,
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
    uid: Uid,
    owner_references: Vec<OwnerReference>,
    finalizers: Vec<String>,
    deletion_timestamp: Option<String>,
}

impl Vertex {
    fn read(kv: &KeyValue) -> Option<Vertex> {
        let place = parse(&kv.key)?;
        let stored: Stored = serde_json::from_slice(&kv.value.bytes()).ok()?;
        Some(Vertex {
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
    pub fn subject(&self) -> TypedRef {
        TypedRef {
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

/// Keys of objects, by what they have in common.
type Sets = HashMap<String, BTreeSet<Bytes>>;

/// The ownership between all objects.
///
/// `dependents`, `namespaces`, `staying` and `foreign` have the keys of exactly those objects in `nodes` that their
/// names say; `gone` has only uids that `dependents` knows too, so that it grows no larger than what names owners.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeMap<Bytes, Arc<Vertex>>,
    by_uid: HashMap<Uid, Bytes>,
    dependents: Sets,
    namespaces: Sets,
    /// Those of them that nobody has begun to delete.
    staying: Sets,
    /// Those that were seen to go, by uid, for as long as something names them as owner: what became of them is
    /// known even once their kind isn't any more.
    gone: HashMap<Uid, Arc<Vertex>>,
    /// The objects with an owner whose kind is not part of the program, by that kind's group: what may be known of
    /// such owners changes with definitions and APIServices.
    foreign: Sets,
    kinds: Kinds,
}

/// What is known of an owner that an object names.
#[derive(Debug)]
pub enum Standing<'a> {
    /// It is there.
    There(&'a Arc<Vertex>),
    /// There is no such object.
    Gone,
    /// It lies in a namespace and the object that names it doesn't: no such owner can be looked up.
    OutOfReach,
    /// Its kind or version is not served, or another server's: nobody here can say.
    Unknown,
}

impl Graph {
    /// The graph of a state.
    pub fn load(state: &State) -> Self {
        let mut graph = Graph::default();
        for kv in state.range(&KeyRange::prefix("/registry/")) {
            graph.kinds.put(kv);
            graph.put(kv);
        }
        graph
    }

    /// Which kinds there are.
    pub fn kinds(&self) -> &Kinds {
        &self.kinds
    }

    /// Takes in what a change tells of kinds: if it does, the objects whose owners may be judged otherwise from now on.
    pub fn learn(&mut self, event: &Event) -> Option<Vec<Bytes>> {
        let groups = self.kinds.apply(event);
        let doubted = groups.iter().filter_map(|group| self.foreign.get(group)).flatten().cloned();
        (!groups.is_empty()).then(|| doubted.collect())
    }

    /// Takes one change in: the object before and now.
    pub fn apply(&mut self, event: &Event) -> (Option<Arc<Vertex>>, Option<Arc<Vertex>>) {
        let (old, new) = match event {
            Event::Put { current, .. } => self.put(current),
            Event::Delete { previous, .. } => (self.remove(&previous.key), None),
        };
        if let (Some(node), None) = (&old, &new)
            && self.dependents.contains_key(node.uid.as_str())
        {
            self.gone.insert(node.uid.clone(), node.clone());
        }
        for owner in old.iter().flat_map(|node| &node.owners) {
            if !self.dependents.contains_key(&owner.uid) {
                self.gone.remove(owner.uid.as_str());
            }
        }
        (old, new)
    }

    fn put(&mut self, kv: &KeyValue) -> (Option<Arc<Vertex>>, Option<Arc<Vertex>>) {
        let old = self.remove(&kv.key);
        let Some(node) = Vertex::read(kv).map(Arc::new) else {
            return (old, None);
        };
        if !node.uid.is_empty() {
            self.by_uid.insert(node.uid.clone(), node.key.clone());
            self.gone.remove(&node.uid);
        }
        for owner in &node.owners {
            self.dependents.entry(owner.uid.clone()).or_default().insert(node.key.clone());
            if let Some(group) = foreign_group(owner) {
                self.foreign.entry(group.to_owned()).or_default().insert(node.key.clone());
            }
        }
        self.namespaces.entry(node.namespace.clone()).or_default().insert(node.key.clone());
        if !node.deleting {
            self.staying.entry(node.namespace.clone()).or_default().insert(node.key.clone());
        }
        self.nodes.insert(node.key.clone(), node.clone());
        (old, Some(node))
    }

    fn remove(&mut self, key: &Bytes) -> Option<Arc<Vertex>> {
        let node = self.nodes.remove(key)?;
        if self.by_uid.get(&node.uid) == Some(key) {
            self.by_uid.remove(&node.uid);
        }
        for owner in &node.owners {
            take(&mut self.dependents, &owner.uid, key);
            if let Some(group) = foreign_group(owner) {
                take(&mut self.foreign, group, key);
            }
        }
        take(&mut self.namespaces, &node.namespace, key);
        take(&mut self.staying, &node.namespace, key);
        Some(node)
    }

    /// The object at a key.
    pub fn get(&self, key: &[u8]) -> Option<&Arc<Vertex>> {
        self.nodes.get(key)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        self.nodes.values()
    }

    /// The owner that a reference of `dependent` means, if it is known to be there.
    pub fn owner(&self, dependent: &Vertex, reference: &OwnerReference) -> Option<&Arc<Vertex>> {
        match self.standing(dependent, reference) {
            Standing::There(owner) => Some(owner),
            _ => None,
        }
    }

    /// What is known of the owner that a reference of `dependent` means: the object of that kind and name in the
    /// same namespace, or in none if the kind is cluster-scoped, and with that uid (`isDangling` of upstream's
    /// garbage collector).
    pub fn standing(&self, dependent: &Vertex, reference: &OwnerReference) -> Standing<'_> {
        let Some(lies) = self.kinds.find(&reference.api_version, &reference.kind) else {
            let went = self.gone.get(reference.uid.as_str()).is_some_and(|owner| {
                (&owner.api_version, &owner.kind, &owner.name)
                    == (&reference.api_version, &reference.kind, &reference.name)
                    && (owner.namespace.is_empty() || owner.namespace == dependent.namespace)
            });
            return if went { Standing::Gone } else { Standing::Unknown };
        };
        if lies.namespaced && dependent.namespace.is_empty() {
            return Standing::OutOfReach;
        }
        let namespace = if lies.namespaced { dependent.namespace.as_str() } else { "" };
        let owner = self.nodes.get(key(lies.group, lies.plural, namespace, &reference.name).as_bytes());
        match owner.filter(|owner| owner.uid.as_str() == reference.uid) {
            Some(owner) => Standing::There(owner),
            None => Standing::Gone,
        }
    }

    /// The object with this uid, wherever it lies.
    pub fn with_uid(&self, uid: &str) -> Option<&Arc<Vertex>> {
        self.nodes.get(self.by_uid.get(uid)?)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.dependents.get(uid).into_iter().flatten().filter_map(|key| self.nodes.get(key))
    }

    /// The objects in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.namespaces.get(namespace).into_iter().flatten().filter_map(|key| self.nodes.get(key))
    }

    /// The objects in a namespace that nobody has begun to delete.
    pub fn staying_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.staying.get(namespace).into_iter().flatten().filter_map(|key| self.nodes.get(key))
    }
}

/// The group of an owner whose kind is not part of the program.
fn foreign_group(owner: &OwnerReference) -> Option<&str> {
    let (group, _) = owner.api_version.split_once('/')?;
    api::resource_of_kind(&owner.api_version, &owner.kind).is_none().then_some(group)
}

/// Takes a key out of a set, which goes once it is empty.
fn take(sets: &mut Sets, name: &str, key: &Bytes) {
    if let Some(keys) = sets.get_mut(name) {
        keys.remove(key);
        if keys.is_empty() {
            sets.remove(name);
        }
    }
}
