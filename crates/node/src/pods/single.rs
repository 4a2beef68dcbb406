//! Pods that must not run twice: they run by the host's lease, and stop with it.
//!
//! Before one starts, in this order: the host holds its lease, its Node says the epoch, the pod says that it stops with that epoch, and a state that is
//! no older than all of that shows that nobody has fenced the host in it. A leader that fences it later does so after the lease is over,
//! and the pod's keeper has killed the pod by then (`shim::keeper`). The pod says the epoch anew for each one: so what a leader has
//! decided of it in an earlier one no longer holds, since that was about another version of the object.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod, PodCondition};
use membership::Lease;
use membership::lease::{Epoch, can_be_fenced};
use objects::{Fencing, Reader, STOPS_WITH_LEASE};
use store::{Revision, State};

use super::PodHost;
use super::entry::Entry;
use super::handler::Handler;
use crate::agent::HostLease;
use crate::pod::{WITHOUT_LEASE, is_over, stops_with, uid};

/// The annotation by which a pod asks to stop with its host's lease ("true"), or to go on without it ("false"), whatever else it is.
pub(crate) const SINGLE: &str = "holdfast.dev/single";
/// How long all of it may take until it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

type Newest = (Option<Epoch>, Option<Revision>, Option<Revision>);

/// Whether a pod must not run twice: it says so, a StatefulSet made it, or it uses a claim that one node alone may write to.
fn must_not_run_twice(pod: &Pod, state: &State) -> bool {
    let asked = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(SINGLE));
    match asked.map(String::as_str) {
        Some("true") => return true,
        Some("false") => return false,
        _ => {}
    }
    let mut owners = pod.metadata.owner_references.iter().flatten();
    owners.any(|owner| owner.controller == Some(true) && owner.kind == "StatefulSet")
        || claims(pod).any(|claim| is_exclusive(pod, &claim, state))
}

/// The names of the claims that a pod uses.
fn claims(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(claim), _) => Some(claim.claim_name.clone()),
        (None, Some(_)) => Some(format!("{}-{}", pod.metadata.name.as_deref()?, volume.name)),
        (None, None) => None,
    })
}

fn is_exclusive(pod: &Pod, claim: &str, state: &State) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let claim = Reader::<PersistentVolumeClaim>::get(state, namespace, claim);
    let modes = claim.iter().filter_map(|claim| claim.spec.as_ref()?.access_modes.as_ref()).flatten();
    let (mut exclusive, mut shared) = (false, false);
    for mode in modes {
        exclusive |= matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod");
        shared |= mode == "ReadWriteMany";
    }
    exclusive && !shared
}

/// What a pod says of whether it stops with the lease.
fn says(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == STOPS_WITH_LEASE)
}

/// What a pod says of the lease that it stops with.
fn promises(pod: &Pod) -> Option<&str> {
    let said = says(pod).filter(|condition| condition.status == "True");
    said.map(|condition| condition.message.as_deref().unwrap_or_default())
}

/// Whether a pod stops with its host's lease: what was made of it decides, if there is anything (`bound`). If not, what it has said holds: a
/// leader goes by that, also where its sandbox is gone before this agent has looked. Only a pod of which nothing is left begins with it.
fn is_single(bound: Option<Option<Epoch>>, has_said: bool, begins: impl FnOnce() -> bool) -> bool {
    bound.map_or_else(|| has_said || begins(), |bound| bound.is_some())
}

impl Entry {
    /// Whether it stops with the host's lease, and with which epoch. What is said of it is waited for, and so waits for nothing.
    pub(super) fn bind(&mut self, host: &PodHost) {
        if self.mirror.is_some() {
            // Nobody starts a static pod elsewhere, and it starts while nothing is known of a lease.
            return;
        }
        let (record, pod, lease) = (&mut self.record, &*self.pod, host.lease.as_ref());
        let bound = host.runtime.bound(uid(pod));
        let has_said = record.is_single || host.can_stop_with_lease(pod) && promises(pod).is_some();
        // What was made without goes on without, and what is being made is as it was asked for.
        let begins = || !is_over(pod) && !record.is_being_made() && host.is_to_be_single(pod);
        record.is_single = is_single(bound, has_said, begins);
        let is_wanted = record.is_single && !is_over(pod);
        record.stops_with = if is_wanted { *host.registered.borrow() } else { None };
        let (was_lacking, went_on) = (record.lacks_lease, record.goes_on);
        record.goes_on = bound == Some(None) && !is_over(pod);
        let is_lacking = |lease: &HostLease| {
            // Looked up once: what a pod claims doesn't change, and claims are read from the state.
            let lacks = if went_on { was_lacking } else { must_not_run_twice(pod, &host.store.snapshot()) };
            lacks.then(|| lease.members.borrow().len())
        };
        let members = lease.filter(|_| record.goes_on).and_then(is_lacking);
        record.lacks_lease = members.is_some();
        if let Some(members) = members
            && !was_lacking
            && says(pod).is_none_or(|condition| condition.status != "False")
        {
            let message = "This pod must not run twice, but was started without its host's lease: if its host is lost, nothing shows that it has stopped";
            // Nobody who has one member expects otherwise.
            host.tell(pod, None, members > 1, WITHOUT_LEASE, message.into());
        }
        if is_wanted {
            record.hold_status_until = Duration::ZERO;
        }
    }
}

impl PodHost {
    /// Whether what runs a pod here can stop with the host's lease by itself. In a runtime of others nothing of ours is beside a pod that could
    /// kill it then: such a pod promises nothing, so nobody takes it for stopped before its host says so.
    fn can_stop_with_lease(&self, pod: &Pod) -> bool {
        let handler = self.handler(pod, &self.store.snapshot());
        self.runtime.can_stop_with_lease() && handler != Ok(Handler::Foreign)
    }

    /// Whether a pod of which nothing is left, or was made yet, is to stop with this host's lease. Where nobody could ever fence this host, that would
    /// cost pods and win none.
    fn is_to_be_single(&self, pod: &Pod) -> bool {
        let of_host = |lease: &HostLease| can_be_fenced(&lease.members.borrow());
        self.can_stop_with_lease(pod)
            && self.lease.as_ref().is_some_and(of_host)
            && must_not_run_twice(pod, &self.store.snapshot())
    }

    /// The epoch of the host's lease that a pod is to stop with, once it may start in it; nothing for a pod that goes on without.
    ///
    /// # Errors
    /// What is waited for, for people.
    pub(super) async fn epoch_for(&self, pod: &Pod, is_single: bool) -> Result<Option<Epoch>, String> {
        if let Some(bound) = self.runtime.bound(uid(pod)) {
            // What is bound is past all that, and its keeper goes on looking.
            return Ok(bound);
        }
        if promises(pod).is_some() && self.handler(pod, &self.store.snapshot()) == Ok(Handler::Foreign) {
            return Err("it has said that it stops with this host's lease, which it can't in this host's runtime: delete it".into());
        }
        let (true, Some(lease)) = (is_single, self.lease.clone()) else { return Ok(None) };
        let (mut registered, mut states) = (self.registered.clone(), self.store.states());
        let mut seen = None;
        let wait = async {
            loop {
                states.borrow_and_update();
                let epoch = *registered.borrow_and_update();
                let epoch = epoch.filter(|epoch| *lease.state.borrow() == Lease::Held(*epoch));
                let state = self.store.snapshot();
                // Most changes are of other objects: these two are read when they are new.
                let newest = Some(self.newest(pod, epoch, &state));
                let is_news = std::mem::replace(&mut seen, newest) != newest;
                if let Some(epoch) = epoch
                    && is_news
                    && self.may_start(pod, epoch, &state)
                {
                    let state =
                        self.store.read().await.map_err(|why| format!("the store doesn't answer: {why}"))?;
                    if self.may_start(pod, epoch, &state) {
                        return Ok(Some(epoch));
                    }
                }
                let changed = tokio::select! {
                    changed = registered.changed() => changed,
                    changed = states.changed() => changed,
                };
                changed.map_err(|_| "this host ends".to_owned())?;
            }
        };
        match tokio::time::timeout(PATIENCE, wait).await {
            Ok(epoch) => epoch,
            Err(_) => {
                Err("this host doesn't hold its lease, or has yet to say so: what must not run twice waits"
                    .into())
            }
        }
    }

    /// What the answer to whether a pod may start depends on: the epoch, and the versions of the Node and of the pod.
    fn newest(&self, pod: &Pod, epoch: Option<Epoch>, state: &State) -> Newest {
        let version = |key: String| state.get(key.as_bytes()).map(|kv| kv.mod_revision);
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let of_pod = objects::key("", "pods", namespace.unwrap_or_default(), name.unwrap_or_default());
        (epoch, version(objects::key("", "nodes", "", &self.name)), version(of_pod))
    }

    /// Whether that state lets a pod start in an epoch.
    fn may_start(&self, pod: &Pod, epoch: Epoch, state: &State) -> bool {
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref());
        let of_node = Reader::<Node>::get(state, "", &self.name).is_some_and(|node| {
            let said = Fencing::of(node.metadata.annotations.as_ref());
            said.grade.is_some() && said.epoch == Some(epoch) && !said.is_fenced()
        });
        let pod_now = Reader::<Pod>::get(state, namespace.unwrap_or_default(), name.unwrap_or_default());
        of_node
            && pod_now.is_some_and(|now| {
                let says = promises(&now) == Some(&*stops_with(epoch));
                let is_this = uid(&now) == uid(pod) && now.metadata.deletion_timestamp.is_none();
                says && is_this && !is_over(&now)
            })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use store::Txn;

    use super::*;

    #[test]
    fn what_was_made_of_a_pod_decides_and_then_what_it_has_said() {
        let no = || false;
        assert!(is_single(Some(Some(7)), false, no) && !is_single(Some(None), true, || true));
        assert!(
            is_single(None, true, no),
            "its sandbox ended while nobody looked: a leader counts on its word"
        );
        assert!(is_single(None, false, || true) && !is_single(None, false, no));
    }

    #[test]
    fn a_pod_of_a_stateful_set_or_with_a_claim_for_one_node_must_not_run_twice_unless_it_says_otherwise() {
        let mut state = State::default();
        for (name, modes) in [
            ("once", json!(["ReadWriteOnce"])),
            ("pod", json!(["ReadWriteOncePod"])),
            ("many", json!(["ReadWriteOnce", "ReadWriteMany"])),
            ("read", json!(["ReadOnlyMany"])),
            ("p-own", json!(["ReadWriteOnce"])),
        ] {
            let claim = json!({"metadata": {"name": name, "namespace": "d"}, "spec": {"accessModes": modes}});
            let key = objects::key("", "persistentvolumeclaims", "d", name);
            state.apply(&Txn::put(key, claim.to_string())).unwrap();
        }
        let is_single = |annotation: Option<&str>, owner: &str, volume: Value| {
            let pod: Result<Pod, _> = serde_json::from_value(json!({
                "metadata": {
                    "name": "p", "namespace": "d", "annotations": annotation.map(|says| json!({SINGLE: says})),
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "u", "controller": true}],
                },
                "spec": {"containers": [], "volumes": [volume]},
            }));
            must_not_run_twice(&pod.unwrap(), &state)
        };
        let none = || json!({"name": "v", "emptyDir": {}});
        let claim = |name: &str| json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
        assert!(is_single(None, "StatefulSet", none()) && !is_single(None, "ReplicaSet", none()));
        assert!(!is_single(Some("false"), "StatefulSet", claim("once")));
        assert!(is_single(Some("true"), "ReplicaSet", none()));
        let all = ["once", "pod", "many", "read", "missing"];
        assert_eq!(
            all.map(|name| is_single(None, "ReplicaSet", claim(name))),
            [true, true, false, false, false]
        );
        assert!(is_single(None, "ReplicaSet", json!({"name": "own", "ephemeral": {}})));
    }
}
