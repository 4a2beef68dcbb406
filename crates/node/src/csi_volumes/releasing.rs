//! What a pod has is unmounted when it ends, and what no pod uses is unstaged: tried until it is done, since as long as it isn't, the
//! volume is this host's.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tasks::SpawnIn;
use tokio::task::JoinSet;
use tracing::info_span;

use super::book::{Place, Use, VolumeId};
use super::{CsiVolumes, disk};

/// How long until it is tried again; it doubles up to the last one (`goroutinemap/exponentialbackoff`).
const FIRST_RETRY: Duration = Duration::from_millis(500);
const LAST_RETRY: Duration = Duration::from_secs(122);

impl CsiVolumes {
    /// The pods that may have something mounted.
    pub(crate) fn pods(&self) -> BTreeSet<String> {
        self.book().uses.keys().map(|place| place.uid.clone()).collect()
    }

    /// Unmounts all that a pod has, whose processes are dead, and for which nothing is being mounted. Returns once that is done.
    pub(crate) async fn release(&self, uid: &str) {
        let mut wait = FIRST_RETRY;
        loop {
            let mut arrivals = self.arrivals.subscribe();
            let uses = self.book().of_pod(uid);
            let mut unmounting = Vec::with_capacity(uses.len());
            for (place, known) in &uses {
                unmounting.push(self.unmount(place, known));
            }
            let ended: Vec<Result<(), String>> = join_all(unmounting).await;
            if ended.iter().all(Result::is_ok) {
                return;
            }
            for why in ended.iter().filter_map(|ended| ended.as_ref().err()) {
                tracing::warn!(uid, why, "a pod's volume can't be unmounted");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Its driver may have come.
                _ = arrivals.changed() => {}
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    async fn unmount(&self, place: &Place, known: &Use) -> Result<(), String> {
        let turn = self.book().turn(&known.id);
        let _turn = turn.lock().await;
        // Somebody else may have done it meanwhile, or have begun to mount it.
        let Some(known) = self.book().uses.get(place).cloned() else { return Ok(()) };
        if known.is_recorded {
            let driver = self.driver(&known.id.driver)?;
            // Whatever becomes of the answer: nobody counts on the mount any more.
            if let Some(known) = self.book().uses.get_mut(place) {
                known.is_done = false;
            }
            let target = disk::target(&self.folders, place);
            driver.unpublish(&known.id.handle, &target).await.map_err(|why| why.to_string())?;
            let (folders, of) = (self.folders.clone(), place.clone());
            let span = info_span!("forget a volume", volume = place.name);
            let forgotten = tasks::blocking(span, move || disk::forget_use(&folders, &of)).await;
            let forgotten = forgotten.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            forgotten.map_err(|why| format!("{}: {why}", target.display()))?;
        }
        self.book().uses.remove(place);
        self.say_in_use();
        self.ends.send_replace(());
        Ok(())
    }

    /// Unstages what no pod uses, as soon as that is so; what a former life left too. Never ends.
    pub(crate) async fn unstage_unused(self: Arc<Self>) {
        let mut ends = self.ends.subscribe();
        let (mut work, mut busy) = (JoinSet::new(), BTreeSet::new());
        loop {
            ends.borrow_and_update();
            let unused = self.book().unused();
            for id in unused {
                if busy.insert(id.clone()) {
                    let volumes = self.clone();
                    let span = info_span!("unstage", driver = id.driver, volume = id.handle);
                    work.spawn_in(span, async move {
                        volumes.unstage(&id).await;
                        id
                    });
                }
            }
            tokio::select! {
                changed = ends.changed() => if changed.is_err() { return },
                Some(Ok(id)) = work.join_next() => {
                    busy.remove(&id);
                }
            }
        }
    }

    /// Returns once a volume is unstaged, or used again.
    async fn unstage(&self, id: &VolumeId) {
        let mut wait = FIRST_RETRY;
        loop {
            let mut arrivals = self.arrivals.subscribe();
            match self.try_unstage(id).await {
                Ok(()) => return,
                Err(why) => tracing::warn!(why, "a volume can't be unstaged"),
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                _ = arrivals.changed() => {}
            }
            wait = (wait * 2).min(LAST_RETRY);
        }
    }

    async fn try_unstage(&self, id: &VolumeId) -> Result<(), String> {
        let turn = self.book().turn(id);
        let _turn = turn.lock().await;
        {
            let book = self.book();
            if book.is_used(id) || !book.staged.contains_key(id) {
                return Ok(());
            }
        }
        let place = disk::staged(&self.folders, id);
        let driver = self.driver(&id.driver)?;
        // A driver that fails, or whose answer is lost, may have unstaged it all the same: the next pod has it staged again, or it would
        // write into the empty folder (`markDeviceUncertain` of the kubelet's reconciler). The record on the disk never says more.
        if let Some(staged) = self.book().staged.get_mut(id) {
            staged.is_done = false;
        }
        driver.unstage(&id.handle, &place).await.map_err(|why| why.to_string())?;
        let (folders, of) = (self.folders.clone(), id.clone());
        let span = info_span!("forget a volume");
        let forgotten = tasks::blocking(span, move || disk::forget_staged(&folders, &of)).await;
        let forgotten = forgotten.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        forgotten.map_err(|why| format!("{}: {why}", place.display()))?;
        self.book().staged.remove(id);
        self.say_in_use();
        Ok(())
    }
}
