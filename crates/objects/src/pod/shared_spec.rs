//! One copy of what pods of one owner ask for: replicas differ in name and node, and share the rest.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::PodSpec;

/// Owners whose last spec is remembered, at most: two that meet in a place only share less.
const PLACES: usize = 4096;

/// The last spec that was seen of an owner's pods, in a place of its uid's hash. It keeps none alive.
struct Seen {
    hasher: RandomState,
    places: Mutex<Vec<Weak<PodSpec>>>,
}

static SEEN: LazyLock<Seen> = LazyLock::new(|| Seen {
    hasher: RandomState::new(),
    places: Mutex::new(std::iter::repeat_with(Weak::new).take(PLACES).collect()),
});

/// A spec that is equal to this one, and the same as that of the owner's other pods if it can be.
pub(super) fn one_copy(spec: PodSpec, metadata: &ObjectMeta) -> Arc<PodSpec> {
    let owner = metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
    let hash = match owner {
        Some(owner) => SEEN.hasher.hash_one(&owner.uid),
        None => SEEN.hasher.hash_one((&metadata.namespace, &metadata.labels)),
    };
    let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
    let known = SEEN.places.lock().unwrap_or_else(PoisonError::into_inner).get(place).and_then(Weak::upgrade);
    // Compared without the lock: many are read at the same time.
    if let Some(known) = known.filter(|known| **known == spec) {
        return known;
    }
    let spec = Arc::new(spec);
    if let Some(place) = SEEN.places.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
        *place = Arc::downgrade(&spec);
    }
    spec
}
