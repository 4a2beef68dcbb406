//! Where pods go: [`schedule`] decides on one pod from a [`Cluster`], [`Waiting`] on all that wait, with what
//! is decided for one counting for the next. [`run`] drives it while this member leads the store, binds
//! what found its place and says why what did not.

mod affinity;
mod cluster;
mod driver;
mod filter;
mod pending;
mod request;
mod schedule;
mod spread;

pub use cluster::{Cluster, Host, Labels};
pub use driver::{Options, run};
pub use pending::{Decision, Silence, Waiting};
pub use schedule::{Unschedulable, schedule};
