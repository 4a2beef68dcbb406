//! Which writer manages which field: `metadata.managedFields` of every writer, and server-side apply.
//!
//! Follows KEP-555 and upstream's structured-merge-diff: an object's fields form a set of paths, each writer owns
//! some of them, and what an applier no longer applies goes, unless another writer owns it too.

mod applying;
mod atomics;
mod cap;
mod check;
mod compare;
mod conflict;
mod entry;
mod field_manager;
mod field_set;
mod fields_v1;
mod item;
mod last_applied;
mod merge;
mod prune;
mod remove;
mod replicas;
mod structural;
mod types;
mod versions;

pub use applying::{Patch, merge_configuration};
pub use entry::same_but_times;
pub use field_manager::{FieldManager, manager_of_user_agent};
pub use field_set::FieldSet;
pub use replicas::{managed_of_object, managed_of_scale};
pub use structural::StructuralType;
pub(crate) use types::topology;
pub use types::{Topology, Typing};
pub use versions::{Conversions, Unconverted};
