//! Which object owns which: the metadata of every object in the store, whatever its kind.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use objects::{TypedRef, Uid, key, parse, shared_owners, shared_text};
use serde::Deserialize;
use store::{Event, KeyRange, KeyValue, Revision, State};

use crate::kinds::Kinds;

/// What ownership needs to know about an object. Every host keeps one of each object in the store, so what objects have in
/// common they share, and the rest is in the key.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// Its key in the store.
    pub key: Bytes,
    /// Its group and version.
    pub api_version: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its namespace, empty for cluster-scoped ones.
    pub namespace: Arc<str>,
    /// Its uid.
    pub uid: Uid,
    /// Its owners.
    pub owners: Arc<[OwnerReference]>,
    /// Its finalizers.
    pub finalizers: Box<[String]>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The revision that last wrote it.
    pub revision: Revision,
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
    finalizers: Box<[String]>,
    deletion_timestamp: Option<String>,
}

impl Vertex {
    fn read(kv: &KeyValue) -> Option<Vertex> {
        let place = parse(&kv.key)?;
        let stored: Stored = serde_json::from_slice(&kv.value.bytes()).ok()?;
        Some(Vertex {
            key: kv.key.clone(),
            api_version: shared_text(&stored.api_version),
            kind: shared_text(&stored.kind),
            namespace: shared_text(place.namespace),
            uid: stored.metadata.uid,
            owners: shared_owners(stored.metadata.owner_references),
            finalizers: stored.metadata.finalizers,
            deleting: stored.metadata.deletion_timestamp.is_some(),
            revision: kv.mod_revision,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        parse(&self.key).map_or("", |place| place.name)
    }

    /// The object's name for a write.
    pub fn subject(&self) -> TypedRef {
        TypedRef {
            api_version: self.api_version.to_string(),
            kind: self.kind.to_string(),
            namespace: self.namespace.to_string(),
            name: self.name().to_owned(),
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

/// An object, found by its key and in the order of keys.
#[derive(Debug, Clone)]
struct ByKey(Arc<Vertex>);

impl Borrow<[u8]> for ByKey {
    fn borrow(&self) -> &[u8] {
        &self.0.key
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key.cmp(&other.0.key)
    }
}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key == other.0.key
    }
}

impl Eq for ByKey {}

/// An object, found by its uid.
#[derive(Debug, Clone)]
struct ByUid(Arc<Vertex>);

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        self.0.uid.as_str()
    }
}

impl Hash for ByUid {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.uid.as_str().hash(state);
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

/// Objects by what they have in common.
type Sets = HashMap<Arc<str>, BTreeSet<ByKey>>;

/// The ownership between all objects.
///
/// `dependents`, `namespaces`, `staying` and `foreign` have exactly those objects of `nodes` that their
/// names say; `gone` has only uids that `dependents` knows too, so that it grows no larger than what names owners.
#[derive(Debug, Default)]
pub struct Graph {
    nodes: BTreeSet<ByKey>,
    by_uid: HashSet<ByUid>,
    dependents: Sets,
    namespaces: Sets,
    /// Those of them that nobody has begun to delete.
    staying: Sets,
    /// Those that were seen to go, by uid, for as long as something names them as owner: what became of them is
    /// known even once their kind isn't any more.
    gone: HashSet<ByUid>,
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
        let doubted = groups.iter().filter_map(|group| self.foreign.get(group.as_str())).flatten();
        (!groups.is_empty()).then(|| doubted.map(|node| node.0.key.clone()).collect())
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
            self.gone.replace(ByUid(node.clone()));
        }
        for owner in old.iter().flat_map(|node| &*node.owners) {
            if !self.dependents.contains_key(owner.uid.as_str()) {
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
            self.by_uid.replace(ByUid(node.clone()));
            self.gone.remove(node.uid.as_str());
        }
        for owner in &*node.owners {
            put(&mut self.dependents, &owner.uid, &node);
            if let Some(group) = foreign_group(owner) {
                put(&mut self.foreign, group, &node);
            }
        }
        put(&mut self.namespaces, &node.namespace, &node);
        if !node.deleting {
            put(&mut self.staying, &node.namespace, &node);
        }
        self.nodes.insert(ByKey(node.clone()));
        (old, Some(node))
    }

    fn remove(&mut self, key: &Bytes) -> Option<Arc<Vertex>> {
        let ByKey(node) = self.nodes.take(&**key)?;
        // Another object may have been put with the same uid since.
        if self.by_uid.get(node.uid.as_str()).is_some_and(|known| Arc::ptr_eq(&known.0, &node)) {
            self.by_uid.remove(node.uid.as_str());
        }
        for owner in &*node.owners {
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
        self.nodes.get(key).map(|node| &node.0)
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Vertex>> {
        self.nodes.iter().map(|node| &node.0)
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
                let owner = &owner.0;
                (&*owner.api_version, &*owner.kind, owner.name())
                    == (&*reference.api_version, &*reference.kind, &*reference.name)
                    && (owner.namespace.is_empty() || owner.namespace == dependent.namespace)
            });
            return if went { Standing::Gone } else { Standing::Unknown };
        };
        if lies.namespaced && dependent.namespace.is_empty() {
            return Standing::OutOfReach;
        }
        let namespace = if lies.namespaced { &*dependent.namespace } else { "" };
        let owner = self.get(key(lies.group, lies.plural, namespace, &reference.name).as_bytes());
        match owner.filter(|owner| owner.uid.as_str() == reference.uid) {
            Some(owner) => Standing::There(owner),
            None => Standing::Gone,
        }
    }

    /// The object with this uid, wherever it lies.
    pub fn with_uid(&self, uid: &str) -> Option<&Arc<Vertex>> {
        self.by_uid.get(uid).map(|node| &node.0)
    }

    /// The objects that name `uid` as an owner.
    pub fn dependents(&self, uid: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.dependents.get(uid).into_iter().flatten().map(|node| &node.0)
    }

    /// The objects in a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.namespaces.get(namespace).into_iter().flatten().map(|node| &node.0)
    }

    /// The objects in a namespace that nobody has begun to delete.
    pub fn staying_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<Vertex>> {
        self.staying.get(namespace).into_iter().flatten().map(|node| &node.0)
    }
}

/// The group of an owner whose kind is not part of the program.
fn foreign_group(owner: &OwnerReference) -> Option<&str> {
    let (group, _) = owner.api_version.split_once('/')?;
    api::resource_of_kind(&owner.api_version, &owner.kind).is_none().then_some(group)
}

/// Puts an object into a set.
fn put(sets: &mut Sets, name: &str, node: &Arc<Vertex>) {
    match sets.get_mut(name) {
        Some(set) => drop(set.insert(ByKey(node.clone()))),
        None => drop(sets.insert(name.into(), BTreeSet::from([ByKey(node.clone())]))),
    }
}

/// Takes what has a key out of a set, which goes once it is empty.
fn take(sets: &mut Sets, name: &str, key: &[u8]) {
    if let Some(set) = sets.get_mut(name) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(name);
        }
    }
}
