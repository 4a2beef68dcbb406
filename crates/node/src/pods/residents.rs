//! The pods that have something of the host, whether anything of them runs or not: for those who look at what they take, and have
//! them go.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Pod;

use crate::pod::uid;

/// The pods whose folders are here, by uid.
#[derive(Debug, Default)]
pub(crate) struct Residents(Mutex<HashMap<String, Resident>>);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Resident {
    /// Its object.
    pub pod: Arc<Pod>,
    /// Whether it was evicted, or has ended: it can't go any sooner.
    pub goes: bool,
}

impl Residents {
    /// A pod has its folder, or its object changed.
    pub(super) fn put(&self, pod: Arc<Pod>, goes: bool) {
        let uid = uid(&pod).to_owned();
        self.lock().insert(uid, Resident { pod, goes });
    }

    /// All of a pod is dead.
    pub(super) fn ended(&self, uid: &str) {
        if let Some(resident) = self.lock().get_mut(uid) {
            resident.goes = true;
        }
    }

    /// What a pod had is given back.
    pub(super) fn remove(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// What is known of a pod, if it has anything here.
    pub(crate) fn get(&self, uid: &str) -> Option<Resident> {
        self.lock().get(uid).cloned()
    }

    /// All of them.
    pub(crate) fn list(&self) -> Vec<Resident> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Resident>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
