//! Whom there is to be a connection to: the members as they change, and callers that are newer than what this
//! member knows of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ::tasks::SpawnIn;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tracing::info_span;

use super::{Peer, Shared, outbound};
use crate::MemberId;
use crate::embedded::outbox::Outbox;
use crate::embedded::wire::Caller;

/// The peers that there are connections to, or tries to get one.
#[derive(Default)]
pub struct Roster(Mutex<BTreeMap<MemberId, Arc<Peer>>>);

impl Roster {
    /// What waits to be sent to a peer.
    pub fn outbox(&self, id: MemberId) -> Option<Arc<Outbox>> {
        self.peers().get(&id).map(|peer| peer.outbox.clone())
    }

    /// Whether there is nobody else.
    pub fn is_empty(&self) -> bool {
        self.peers().is_empty()
    }

    /// A peer has connected: it is worth trying at once to connect to it.
    pub(super) fn heard(&self, id: MemberId) {
        if let Some(peer) = self.peers().get(&id) {
            peer.heard.notify_one();
        }
    }

    fn peers(&self) -> std::sync::MutexGuard<'_, BTreeMap<MemberId, Arc<Peer>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows who the members are for as long as it runs.
pub async fn run(shared: Arc<Shared>, others: Vec<Caller>, mut callers: mpsc::Receiver<Caller>) {
    // By their names, for which they have certificates: there are not many.
    let mut strangers: BTreeMap<String, Caller> = BTreeMap::new();
    for caller in others {
        strangers.insert(caller.name.clone(), caller);
    }
    let mut members = shared.members.clone();
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<MemberId, AbortHandle> = BTreeMap::new();
    loop {
        let known = members.borrow_and_update().clone();
        strangers.retain(|_, caller| known.get(caller.id).is_none() && !known.is_removed(caller.id));
        let mut wanted: BTreeMap<MemberId, Caller> =
            strangers.values().map(|caller| (caller.id, caller.clone())).collect();
        for (id, record) in known.iter().filter(|(_, record)| record.joined) {
            wanted.insert(id, Caller { id, name: record.name.clone(), address: record.address });
        }
        wanted.remove(&shared.me.id);
        follow(&shared, &wanted, &mut running, &mut tasks);
        tokio::select! {
            changed = members.changed() => {
                if changed.is_err() {
                    // The driver has ended, and with it the need of connections.
                    return;
                }
            }
            Some(caller) = callers.recv() => {
                strangers.insert(caller.name.clone(), caller);
            }
            Some(_) = tasks.join_next() => {}
        }
    }
}

fn follow(
    shared: &Arc<Shared>,
    wanted: &BTreeMap<MemberId, Caller>,
    running: &mut BTreeMap<MemberId, AbortHandle>,
    tasks: &mut JoinSet<()>,
) {
    let mut peers = shared.roster.peers();
    let is_wanted = |peer: &Peer| {
        wanted.get(&peer.id).is_some_and(|to| (&to.name, to.address) == (&peer.name, peer.address))
    };
    peers.retain(|id, peer| {
        let keep = is_wanted(peer);
        if !keep && let Some(task) = running.remove(id) {
            tracing::info!(peer = peer.name, %id, "the peer is no member any more, or has moved");
            task.abort();
        }
        keep
    });
    for (id, caller) in wanted {
        if !peers.contains_key(id) {
            let peer = Arc::new(Peer {
                id: *id,
                name: caller.name.clone(),
                address: caller.address,
                outbox: Arc::default(),
                heard: Notify::new(),
            });
            peers.insert(*id, peer.clone());
            running.insert(
                *id,
                tasks.spawn_in(
                    info_span!("to member", member = peer.name, id = %peer.id),
                    outbound::run(shared.clone(), peer),
                ),
            );
        }
    }
}
