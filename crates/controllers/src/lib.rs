//! One module a controller: `reconcile(view, key, now)` decides, as data, what to change. A [`View`] is one
//! consistent revision of the state, typed and indexed; a [`Key`] says what to reconcile; a [`Plan`] is what
//! was decided. [`run`] drives them all while this member leads the store.

mod account_token;
mod api_service;
mod certificate;
mod cluster_role;
mod deployment;
mod disruption;
mod driver;
mod endpoints;
mod eviction;
mod expiry;
mod flow_schema;
mod garbage;
mod graph;
mod key;
mod kinds;
mod missing_node;
mod namespace;
mod node;
mod plan;
mod pods;
mod protection;
mod queue;
mod replica_set;
mod resource_quota;
mod share;
mod validating_policy;
mod victims;
mod view;

pub use driver::{Options, run};
pub use graph::{Graph, Node, Standing};
pub use key::{Key, Now, Silence};
pub use kinds::{Kinds, Lies, Remote};
pub use node::GRACE;
pub use plan::{Action, Note, Plan, with_reason};
pub use view::{Touched, View};
