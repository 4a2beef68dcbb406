//! The replicated, versioned map that everything else stands on.
//!
//! One trait, [`Store`], with etcd v3's meaning of revision, create and mod revision, version and
//! compaction. The whole [`State`] is an immutable map in memory: a snapshot is a pointer, a list is
//! consistent for as long as its reader likes, and a watch reads the history that the state carries.
//! Behind the trait stands the embedded engine (Raft, log, snapshots); [`Memory`] is the same state
//! without replication or disk.
//!
//! ```
//! use store::{Compare, Condition, KeyRange, Memory, Revision, Store, Txn};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), store::Error> {
//! let store = Memory::default();
//! let mut watcher = store.watch(KeyRange::prefix("/lamps/"), Revision::ZERO)?;
//!
//! let first = store.txn(Txn::put("/lamps/hall", "on")).await?;
//!
//! // Off, unless somebody else was at the switch since.
//! let unchanged = Condition::ModRevision("/lamps/hall".into(), Compare::Equal, first.revision);
//! let off = Txn { conditions: vec![unchanged], ..Txn::put("/lamps/hall", "off") };
//! assert!(store.txn(off.clone()).await?.succeeded);
//! assert!(!store.txn(off).await?.succeeded);
//!
//! let (events, state) = watcher.changes().await?;
//! assert_eq!(events.len(), 2);
//! assert_eq!(state.get(b"/lamps/hall").map(|kv| kv.value.bytes()), Some("off".into()));
//!
//! // What was, as long as it is not compacted: a state never changes.
//! assert_eq!(state.at(first.revision)?.get(b"/lamps/hall").map(|kv| kv.value.bytes()), Some("on".into()));
//! # Ok(())
//! # }
//! ```
//!
//! A program with members of its own starts each with [`Embedded::start`] and a [`Config`]: the example
//! `three_members` shows it whole.

mod backup;
mod embedded;
mod engine;
mod error;
mod key_value;
mod leading;
mod members;
mod memory;
mod metrics;
mod packing;
mod sealing;
mod state;
mod transaction;
mod value;
mod watch;

pub use backup::{Backup, BackupError, BackupFile};
pub use embedded::parts;
pub use embedded::{Beats, Config, Embedded, FirstMember, Limits, MOST_PEERS, Start, StartError, Timing};
pub use engine::{Leadership, Store};
pub use error::Error;
pub use key_value::{Event, KeyRange, KeyValue, LeaseId, Revision};
pub use leading::{Duty, keep_ready, while_leading};
pub use members::{Member, MemberError, MemberId};
pub use memory::Memory;
pub use metrics::Metrics;
pub use sealing::{SEALED, Sealer, Sealing};
pub use state::{HISTORY_BYTES, State, Told};
pub use transaction::{Compare, Condition, Op, OpResult, Txn, TxnResponse};
pub use value::Value;
pub use watch::Watcher;
