//! The replicated, versioned map that everything else stands on.
//!
//! One trait, [`Store`], with etcd v3's meaning of revision, create and mod revision, version and
//! compaction. The whole [`State`] is an immutable map in memory: a snapshot is a pointer, a list is
//! consistent for as long as its reader likes, and a watch reads the history that the state carries.
//! Behind the trait stands the embedded engine (Raft, log, snapshots); [`Memory`] is the same state
//! without replication or disk.

mod backup;
mod embedded;
mod engine;
mod error;
mod key_value;
mod leading;
mod members;
mod memory;
mod state;
mod transaction;
mod watch;

pub use backup::{Backup, BackupError, BackupFile};
pub use embedded::parts;
pub use embedded::{Config, Embedded, FirstMember, Limits, Start, StartError, Timing};
pub use engine::{Leadership, Store};
pub use error::Error;
pub use key_value::{Event, KeyRange, KeyValue, LeaseId, Revision};
pub use leading::while_leading;
pub use members::{Member, MemberError, MemberId};
pub use memory::Memory;
pub use state::{State, Told};
pub use transaction::{Compare, Condition, Op, OpResult, Txn, TxnResponse};
pub use watch::Watcher;
