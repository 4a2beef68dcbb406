//! The shims of pods: how each is made, heard, and cleared away after once it is gone.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use membership::lease::Epoch;
use tracing::info_span;

use super::bond::Bond;
use super::link::Link;
use super::runtime::ShimRuntime;
use super::session::system;
use crate::container::{cgroup, end_leftovers};
use crate::runtime::{RunError, Trouble, Which};
use crate::shim::wire::{Answer, Ask, Life};

/// How long a shim may take to come up, on a machine that starts many at once.
const COMES_UP: Duration = Duration::from_secs(30);

/// The place of one pod's shim.
#[derive(Debug, Default)]
pub(super) struct Slot {
    pub link: Mutex<Option<Arc<Link>>>,
    /// The epoch of the host's lease that the next one stops with.
    pub bound: Mutex<Option<Epoch>>,
    /// Held while one is made.
    pub making: tokio::sync::Mutex<()>,
}

impl Slot {
    pub fn link(&self) -> MutexGuard<'_, Option<Arc<Link>>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn bound(&self) -> MutexGuard<'_, Option<Epoch>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ShimRuntime {
    pub(super) fn slots(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a pod has its shim here, or had one.
    pub(crate) fn has(&self, uid: &str) -> bool {
        self.link(uid).is_some()
    }

    pub(super) fn link(&self, uid: &str) -> Option<Arc<Link>> {
        self.slots().get(uid).and_then(|slot| slot.link().clone())
    }

    pub(super) fn slot(&self, uid: &str) -> Arc<Slot> {
        self.slots().entry(uid.to_owned()).or_default().clone()
    }

    pub(super) async fn remove_cgroup(&self, uid: &str) {
        if let Some(cgroups) = &self.cgroups {
            cgroups.remove(uid).await;
        }
    }

    /// The cgroups of a container that is about to start, if it has any.
    pub(super) async fn cgroup(&self, which: &Which, wanted: &cgroup::Wanted) -> io::Result<Vec<OwnedFd>> {
        let Some(cgroups) = self.cgroups.clone() else { return Ok(Vec::new()) };
        cgroups.remove_former(&which.uid, &which.container).await;
        let (which, wanted) = (which.clone(), *wanted);
        let span = info_span!("make a cgroup", uid = which.uid, container = which.container);
        let made = move || cgroups.of_container(&which.uid, &which.container, &wanted);
        tasks::blocking(span, made).await.map_err(io::Error::other)?
    }

    /// Hears of what goes wrong with a pod's containers, for as long as its shim is asked at all.
    pub(super) fn attend(&self, uid: &str, link: &Arc<Link>) {
        let span = info_span!("hear of trouble", uid);
        let (uid, tell) = (uid.to_owned(), self.troubles.0.clone());
        // Weak: a link that nobody else has must be dropped, and so end its connection.
        let (weak, mut asked) = (Arc::downgrade(link), link.send(&Ask::Trouble, Vec::new()).1);
        tasks::spawn(span, async move {
            while let Ok((Answer::Trouble { life: Life { container, attempt }, why }, _)) = asked.await {
                let which = Which { uid: uid.clone(), container, attempt };
                let (Ok(()), Some(link)) = (tell.send(Trouble { which, why }), weak.upgrade()) else {
                    return;
                };
                asked = link.send(&Ask::Trouble, Vec::new()).1;
            }
        });
    }

    /// Ends what a shim that is gone left behind, unless that was done. Meanwhile no next one is made.
    pub(super) async fn clear(&self, uid: &str, gone: &Link) {
        if gone.is_cleared.load(Ordering::Acquire) {
            return;
        }
        tracing::warn!(uid, "a pod's shim ended: what is left of its containers is killed");
        end_leftovers(self.pods.join(uid), |_| false).await;
        self.remove_cgroup(uid).await;
        gone.is_cleared.store(true, Ordering::Release);
    }

    /// The pod's shim; a new one if it has none.
    pub(super) async fn sandbox(&self, uid: &str) -> Result<Arc<Link>, RunError> {
        let slot = self.slot(uid);
        let _making = slot.making.lock().await;
        let (former, bound) = (slot.link().clone(), *slot.bound());
        if let Some(link) = &former {
            if !link.is_over() {
                if link.bond().map(|bond| bond.epoch) == bound {
                    return Ok(link.clone());
                }
                return Err(RunError::Lease(
                    "what is left of it by a former lease of this host still ends".into(),
                ));
            }
            self.clear(uid, link).await;
        }
        let bond = bound.and_then(|epoch| Some(Bond { epoch, page: self.lease.clone()? }));
        let link = self.launch(uid, bond.clone()).await.map_err(|why| match bond {
            // Its keeper starts nothing then.
            Some(bond) if bond.is_over() => {
                RunError::Lease("this host's lease ended before the pod's shim was made".into())
            }
            _ => system(format!("can't make the pod's shim: {why}")),
        })?;
        self.attend(uid, &link);
        *slot.link() = Some(link.clone());
        Ok(link)
    }

    async fn launch(&self, uid: &str, bond: Option<Bond>) -> io::Result<Arc<Link>> {
        let folder = self.pods.join(uid);
        let (launcher, made, cgroups) = (self.launcher.clone(), folder.clone(), self.cgroups.clone());
        let launched = tasks::blocking(info_span!("launch a shim", uid), move || {
            launcher.launch(&made, bond.as_ref(), cgroups.as_ref().map(|cgroups| cgroups.of_pods()))
        });
        let mut child = launched.await.map_err(io::Error::other)??;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        tasks::spawn(info_span!("reap a shim", uid), async move { child.wait().await });
        let (link, told) = Link::open(&folder, pid, COMES_UP).await?;
        if told.is_none() {
            link.kill();
            return Err(io::Error::other("it is of another version than the agent, or doesn't answer"));
        }
        Ok(link)
    }
}
