//! What a former life of the host left: whose pods are wanted no more, and end before others begin.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use store::{State, Store};
use tasks::SpawnIn;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::info_span;

use super::PodHost;
use super::desk::Desk;

/// How long the pods of a former life that are not this host's any more may take to end before the others go on without.
const FORMER_PATIENCE: Duration = Duration::from_secs(30);

impl Desk {
    /// Takes the first state that is no older than now, and ends what a former life left and nobody wants any more.
    pub(super) async fn begin(&mut self, state: &Arc<State>) {
        self.look_at_static_again(state);
        self.all_anew(state);
        let uids: BTreeSet<String> = self.entries.keys().cloned().collect();
        // Pods that were deleted or replaced elsewhere meanwhile.
        self.found.clear();
        let patience = self.former_patience();
        for uid in self.host.runtime.sandboxes() {
            if uids.contains(&uid) || self.former.contains(&uid) {
                continue;
            }
            tracing::info!(uid, "a pod of a former life is not this host's any more: ended");
            self.end_former(&uid, patience).await;
        }
        // A runtime that doesn't answer yet may have any of the others: then what they had is given back once it has answered.
        if !self.host.runtime.is_awaited() {
            self.give_back().await;
        }
    }

    /// Gives back what pods of a former life had of which nothing runs any more, and that nobody wants.
    pub(super) async fn give_back(&mut self) {
        let uids: BTreeSet<String> = self.entries.keys().cloned().collect();
        let kept = &uids | &self.former;
        // Only now: while a process may use an address, it is nobody else's.
        let addressed = self.host.addresses.lock().unwrap_or_else(PoisonError::into_inner).uids();
        for uid in addressed.iter().filter(|uid| !kept.contains(*uid)) {
            self.host.release_address(uid).await;
        }
        // What drivers mounted for them is unmounted first, however long that takes.
        let mounted = self.host.csi.pods();
        for uid in &mounted - &kept {
            let span = info_span!("release a former pod", uid);
            self.work.spawn_in(span, remove_former(self.host.clone(), uid));
        }
        let (folders, kept) = (self.host.folders.clone(), &kept | &mounted);
        let _ = tasks::blocking(info_span!("remove former pods"), move || folders.keep_only(&kept)).await;
    }

    /// Until when the others wait for former pods to end.
    pub(super) fn former_patience(&self) -> Instant {
        self.host.clock.instant(self.host.clock.now().elapsed + FORMER_PATIENCE)
    }

    /// Ends what a former life left of a pod. What hasn't ended by then is ended and removed later.
    pub(super) async fn end_former(&mut self, uid: &str, patience: Instant) {
        if tokio::time::timeout_at(patience, self.begin_to_end(uid)).await.is_err() {
            tracing::warn!(uid, "a pod of a former life doesn't end yet: the others don't wait for it");
            self.former.insert(uid.to_owned());
        }
    }

    /// Begins to end a pod of a former life. Where nobody waits for that, what it had is given back and removed, too.
    pub(super) fn begin_to_end(&mut self, uid: &str) -> oneshot::Receiver<()> {
        let ((tell, told), host, of) = (oneshot::channel(), self.host.clone(), uid.to_owned());
        self.work.spawn_in(info_span!("end a former pod", uid), async move {
            host.runtime.end(&of).await;
            if tell.send(()).is_err() {
                host.release_address(&of).await;
                remove_former(host, of).await;
            }
        });
        told
    }
}

/// Removes what a former life left of a pod of which nothing runs, once it is unmounted.
async fn remove_former(host: Arc<PodHost>, uid: String) {
    host.csi.release(&uid).await;
    let remove = move || host.folders.remove_pod(&uid);
    let _ = tasks::blocking(info_span!("remove a former pod"), remove).await;
}

/// A state that is no older than now. A host that was away must not start pods that were replaced elsewhere, so without a quorum
/// none of these starts.
pub(super) async fn fresh_state(store: Arc<dyn Store>) -> Arc<State> {
    let mut leadership = store.leadership();
    loop {
        leadership.borrow_and_update();
        match store.read().await {
            Ok(state) => return state,
            Err(error) => tracing::debug!(%error, "waiting for the store before pods start"),
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            _ = leadership.changed() => {}
        }
    }
}
