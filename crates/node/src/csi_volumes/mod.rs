//! Volumes of CSI drivers, a host's side of them: drivers register, volumes are staged once for the host and published for each pod,
//! and both is undone once nobody uses them. Paths, orders and words are the kubelet's (`pkg/volume/csi`,
//! `pkg/kubelet/volumemanager`).
//!
//! A driver is another program that may hang, fail, lie or be away. Each pod's mounting and unmounting is work of its own, each call has
//! a time limit, and calls about one volume come one after the other: so a driver harms its own volumes alone.
//!
//! What a driver may have mounted stands on the disk *before* it is asked to ([`disk`]), and is forgotten after it has said that it
//! unmounted it. The Node says that it uses an attached volume before its driver is asked for it, and for as long as that
//! record is there ([`attaching`]): so no volume is detached under a mount, also when the agent crashes in between.

mod attaching;
mod book;
mod disk;
mod keeping;
mod mounting;
mod registrar;
mod releasing;
mod wish;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use objects::{Recorder, Writer};
use store::Store;
use tokio::sync::watch;

pub(crate) use attaching::NodeVolumes;
use book::Book;
pub(crate) use wish::{Wish, wishes};

use crate::clock::Clock;
use crate::pods::Folders;

/// The volumes of this host's pods that CSI drivers mount.
pub(crate) struct CsiVolumes {
    /// The host's name.
    name: String,
    store: Arc<dyn Store>,
    writer: Arc<dyn Writer>,
    recorder: Recorder,
    folders: Folders,
    clock: Clock,
    book: Mutex<Book>,
    /// What the Node is to say.
    node: watch::Sender<NodeVolumes>,
    /// The newest of it that the Node said.
    reported: watch::Sender<u64>,
    /// Changes when a driver comes.
    arrivals: watch::Sender<()>,
    /// Changes when a pod's use of a volume ends.
    ends: watch::Sender<()>,
}

impl CsiVolumes {
    /// Those that a former life of the host left, as far as its disk says.
    pub(crate) fn open(
        name: String,
        folders: Folders,
        store: Arc<dyn Store>,
        writer: Arc<dyn Writer>,
        recorder: Recorder,
        clock: Clock,
    ) -> Self {
        let mut book = Book::default();
        disk::load(&folders, &mut book);
        let node = NodeVolumes { generation: 0, in_use: book.in_use() };
        CsiVolumes {
            name,
            store,
            writer,
            recorder,
            folders,
            clock,
            book: Mutex::new(book),
            node: watch::Sender::new(node),
            reported: watch::Sender::new(0),
            arrivals: watch::Sender::new(()),
            ends: watch::Sender::new(()),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The agent's name as a user.
    fn user(&self) -> String {
        format!("system:node:{}", self.name)
    }
}
