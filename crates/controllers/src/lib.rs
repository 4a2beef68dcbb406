//! One module a controller: what it looks at, which keys a change touches, and how it decides, as data, what to
//! change. A [`View`] is one consistent revision of the state, typed and indexed; a [`Key`] says what to reconcile;
//! a [`Plan`] is what was decided. [`run`] drives all controllers of the list while this member leads the store.

mod account_token;
mod api_service;
mod certificate;
mod cluster_role;
mod controller;
mod deployment;
mod disruption;
mod driver;
mod endpoints;
mod eviction;
mod expiry;
mod flow_schema;
mod garbage;
mod graph;
mod index;
mod key;
mod kinds;
mod list;
mod missing_node;
mod namespace;
mod node;
mod plan;
mod pods;
mod protection;
mod queue;
mod replica_set;
mod replicas;
mod resource_quota;
mod selectors;
mod share;
mod tables;
mod touched;
mod validating_policy;
mod victims;
mod view;

pub use controller::{Now, Silence, Urgency};
pub use driver::{Options, run};
pub use key::Key;
pub use node::GRACE;
pub use plan::{Action, Note, Plan, with_reason};
pub use queue::Load;
pub use touched::Touched;
pub use view::View;
