//! Keeps the host's Node object, and its lease, as they should be, for as long as the agent lives.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use membership::Lease;
use membership::lease::Epoch;
use objects::{Fencing, Grade, Writer};
use serde::Deserialize;
use serde_json::Value;
use store::Store;
use tokio::sync::watch;

use super::registration::{NodeIdentity, due};
use super::{MachineInfo, lease, read_machine};
use crate::clock::Clock;
use crate::csi_volumes::CsiVolumes;
use crate::eviction::Pressures;
use crate::images::Images;
use crate::pod::without_nulls;

/// How often the machine is looked at when nothing changed: the interval at which a kubelet updates its node's status.
const LOOK: Duration = Duration::from_secs(10);
/// The pause before a registration that failed is tried again; it doubles up to the last one. A host starts while the cluster may
/// have no leader yet, so the first ones are short.
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Registers the host and keeps it so; never ends.
pub(crate) async fn keep_registered(
    mut who: NodeIdentity,
    (volumes, mut epochs): (Arc<CsiVolumes>, Option<Epochs>),
    data: PathBuf,
    store: Arc<dyn Store>,
    writer: Arc<dyn Writer>,
    (images, mut pressures, mut closing): (
        Option<Arc<dyn Images>>,
        watch::Receiver<Pressures>,
        watch::Receiver<bool>,
    ),
    clock: Clock,
) {
    let user = format!("system:node:{}", who.name);
    let key = objects::key("", "nodes", "", &who.name);
    let lease_key = objects::key("coordination.k8s.io", "leases", lease::NAMESPACE, &who.name);
    let mut states = store.states();
    let mut leadership = store.leadership();
    let mut of_volumes = volumes.node();
    who.csi = of_volumes.borrow_and_update().clone();
    let mut retry = FIRST_RETRY;
    let mut seen = None;
    let mut look_at = Duration::ZERO;
    loop {
        states.borrow_and_update();
        leadership.borrow_and_update();
        if who.csi.generation != of_volumes.borrow_and_update().generation {
            who.csi = of_volumes.borrow().clone();
            seen = None;
        }
        if let Some(epochs) = &mut epochs {
            let held = epochs.held();
            if who.lease != held {
                (who.lease, seen) = (held, None);
            }
            let grades = epochs.grades.borrow_and_update();
            if who.grades != *grades {
                (who.grades, seen) = (grades.clone(), None);
            }
        }
        let kv = store.snapshot().get(key.as_bytes()).cloned();
        let revision = kv.as_ref().map(|kv| kv.mod_revision);
        let now = clock.now();
        let is_news = pressures.has_changed().unwrap_or(false) || closing.has_changed().unwrap_or(false);
        if seen != Some(revision) || now.elapsed >= look_at || is_news {
            seen = Some(revision);
            look_at = now.elapsed + LOOK;
            let there = images.as_ref().map_or_else(Vec::new, |images| images.list());
            let pressures = *pressures.borrow_and_update();
            let is_closing = *closing.borrow_and_update();
            let machine = MachineInfo { images: there, pressures, is_closing, ..read_machine(&data) };
            let stored =
                kv.and_then(|kv| serde_json::from_slice::<Value>(&kv.value.bytes()).ok()).map(without_nulls);
            let uid = stored.as_ref().and_then(|node| node["metadata"]["uid"].as_str());
            if let Some(epochs) = &epochs {
                epochs.show(who.lease, stored.as_ref());
            }
            let held = store.snapshot().get(lease_key.as_bytes()).cloned();
            let held = held.and_then(|kv| serde_json::from_slice::<Value>(&kv.value.bytes()).ok());
            // A lease hangs on its node: without one, there is none to renew yet.
            let lease = uid.and_then(|uid| lease::due(&who.name, uid, held.as_ref(), now.wall));
            let mut failed = false;
            for write in due(&who, &machine, stored.as_ref(), now.wall).into_iter().chain(lease) {
                let answer = tokio::time::timeout(Duration::from_secs(5), writer.write(&user, write)).await;
                match answer {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(%error, node = who.name, "the node's object was not written");
                        failed = true;
                    }
                    Err(_) => failed = true,
                }
            }
            if failed {
                seen = None;
                tokio::select! {
                    () = tokio::time::sleep(retry) => {}
                    _ = leadership.changed() => {}
                }
                retry = (retry * 2).min(LAST_RETRY);
                continue;
            }
            retry = FIRST_RETRY;
            volumes.reported(who.csi.generation);
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            changed = of_volumes.changed() => if changed.is_err() { return },
            () = Epochs::changed(epochs.as_mut()) => {}
            () = tokio::time::sleep_until(clock.instant(look_at)) => {}
            Ok(()) = pressures.changed() => pressures.mark_changed(),
            Ok(()) = closing.changed() => closing.mark_changed(),
        }
    }
}

/// The epochs of the host's lease: what it holds, and what its Node says.
pub(crate) struct Epochs {
    pub(crate) lease: watch::Receiver<Lease>,
    /// What stops that once the lease is over.
    pub(crate) grades: watch::Receiver<Vec<Grade>>,
    /// The epoch in which the host may run what must not run twice.
    pub(crate) registered: watch::Sender<Option<Epoch>>,
}

impl Epochs {
    fn held(&mut self) -> Option<Epoch> {
        match *self.lease.borrow_and_update() {
            Lease::Held(epoch) => Some(epoch),
            Lease::Awaited(_) | Lease::Over(_) => None,
        }
    }

    /// Shows the epoch that is held if the stored Node says it, and isn't fenced in it.
    fn show(&self, held: Option<Epoch>, node: Option<&Value>) {
        let annotations = node.map(|node| &node["metadata"]["annotations"]);
        let annotations = annotations.and_then(|all| BTreeMap::deserialize(all).ok());
        let said = Fencing::of(annotations.as_ref());
        let is_said = said.grade.is_some() && said.epoch == held && !said.is_fenced();
        let now = held.filter(|_| is_said);
        self.registered.send_if_modified(|known| std::mem::replace(known, now) != now);
    }

    /// Waits until the lease changes, or what stops with it.
    async fn changed(epochs: Option<&mut Self>) {
        let Some(Epochs { lease, grades, .. }) = epochs else { return std::future::pending().await };
        tokio::select! {
            Ok(()) = lease.changed() => {}
            Ok(()) = grades.changed() => {}
            // Those who tell ended, and with them the host.
            else => std::future::pending().await,
        }
    }
}
