//! What bounds a pod as a whole: the runtime makes its containers' cgroups beneath one of the host's.

use std::collections::HashMap;

use tracing::info_span;

use super::Sandbox;
use super::features::ELSEWHERE;
use super::runtime::{ForeignRuntime, system};
use crate::container::cgroup::{Amounts, Memory};
use crate::runtime::RunError;

impl ForeignRuntime {
    /// Makes the cgroup of a pod, which has its limits from now on if it wasn't there, and answers what the runtime calls it. Without
    /// one, if none can be made, runs only what asks for no limits.
    ///
    /// # Errors
    /// If a pod that asks for limits gets none.
    pub(super) async fn pod_cgroup(&self, uid: &str, wanted: &Sandbox) -> Result<Option<String>, RunError> {
        let Some(cgroups) = self.cgroups.clone() else {
            let what = "limits of the whole pod (spec.resources): this host has no cgroups for its runtime";
            return Err(RunError::Config(format!("{what}; {ELSEWHERE}")));
        };
        let (span, of, amounts) = (info_span!("make a pod's cgroup", uid), uid.to_owned(), wanted.amounts);
        match tasks::blocking(span, move || cgroups.for_others(&of, amounts)).await.map_err(system)? {
            Ok(name) => Ok(Some(name)),
            Err(why) if wanted.is_limited => Err(system(format!("can't make the pod's cgroup: {why}"))),
            Err(error) => {
                tracing::warn!(uid, %error, "a pod runs in cgroups of its runtime's own: can't make it one");
                Ok(None)
            }
        }
    }

    /// What the runtime calls the cgroup of a pod, if it has one.
    pub(super) async fn known_cgroup(&self, uid: &str) -> Option<String> {
        let (cgroups, of) = (self.cgroups.clone()?, uid.to_owned());
        let look = move || cgroups.name_for_others(&of).ok();
        tasks::blocking(info_span!("find a pod's cgroup", uid), look).await.ok()?
    }

    /// Gives a pod as a whole other limits; fine if it has none.
    pub(super) async fn limit(&self, uid: &str, amounts: Amounts) -> Result<(), RunError> {
        match self.cgroups.clone() {
            Some(cgroups) => cgroups.updated(uid, None, amounts).await.map_err(system),
            None => Ok(()),
        }
    }

    /// What those pods use of memory that have cgroups of the host's.
    pub(super) async fn memory(&self, uids: Vec<String>) -> HashMap<String, Memory> {
        match self.cgroups.clone() {
            Some(cgroups) => cgroups.memory_of_pods(uids).await,
            None => HashMap::new(),
        }
    }

    /// Removes the cgroup of a pod of which nothing runs any more.
    pub(super) async fn remove_cgroup(&self, uid: &str) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove_with_others(uid).await;
        }
    }

    /// Likewise those that a former agent left, but for those of the pods with sandboxes.
    pub(super) async fn remove_stray_cgroups(&self) {
        let Some(cgroups) = self.cgroups.clone() else { return };
        let all = tasks::blocking(info_span!("look for pods' cgroups"), move || cgroups.pods()).await;
        for uid in all.unwrap_or_default() {
            if !self.has(&uid) {
                self.remove_cgroup(&uid).await;
            }
        }
    }
}
