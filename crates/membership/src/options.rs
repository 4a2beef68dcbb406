//! What heartbeats need to know.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::lease::{Epoch, Terms};
use crate::page::LeasePage;

/// What heartbeats need to know.
#[derive(Clone)]
pub struct Options {
    /// This host's name.
    pub name: String,
    /// Where beats arrive, and leave from (UDP); and where streams of them arrive (TCP).
    pub listen: SocketAddr,
    /// The other hosts and where they listen, to begin with: [`HeartbeatDriver::peers`](crate::HeartbeatDriver::peers) changes them.
    pub peers: BTreeMap<String, SocketAddr>,
    /// The key that all hosts of the cluster share.
    pub key: [u8; 32],
    /// From one beat to the next.
    pub interval: Duration,
    /// A host that was not heard for so long is silent.
    pub silent_after: Duration,
    /// The hosts whose word on leases counts, to begin with: [`HeartbeatDriver::members`](crate::HeartbeatDriver::members) changes them. If none is named, they are those that a
    /// former process has left in `memory`.
    pub members: BTreeSet<String>,
    /// How long leases hold.
    pub terms: Terms,
    /// The least epoch that this host begins with: a later one than it ever had, unless that is remembered.
    pub epoch: Epoch,
    /// The file in which this host remembers its epoch, and what it has promised about others. Without one it must never be started again
    /// under its name.
    pub memory: Option<PathBuf>,
    /// Where a former process of this host said until when its lease holds, if what runs by that still does: it goes on then.
    pub page: Option<LeasePage>,
}

impl Options {
    /// Beats every 50 ms, silence after 250 ms; all of the peers are members.
    pub fn new(
        name: impl Into<String>,
        listen: SocketAddr,
        peers: BTreeMap<String, SocketAddr>,
        key: [u8; 32],
    ) -> Self {
        let (interval, silent_after) = (Duration::from_millis(50), Duration::from_millis(250));
        let (members, terms) = (peers.keys().cloned().collect(), Terms::default());
        let (name, epoch, memory, page) = (name.into(), 1, None, None);
        Options { name, listen, peers, key, interval, silent_after, members, terms, epoch, memory, page }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Options {
            name,
            listen,
            peers,
            key: _,
            interval,
            silent_after,
            members,
            terms,
            epoch,
            memory,
            page,
        } = self;
        f.debug_struct("Options")
            .field("name", name)
            .field("listen", listen)
            .field("peers", peers)
            .field("interval", interval)
            .field("silent_after", silent_after)
            .field("members", members)
            .field("terms", terms)
            .field("epoch", epoch)
            .field("memory", memory)
            .field("page", page)
            .finish_non_exhaustive()
    }
}
