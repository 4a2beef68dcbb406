//! Whether a machine can be a host, and how a host does that is one: `holdfast check`. How a cluster does: `holdfast status`.
//!
//! [`Report::make`] first gathers facts, from the machine, the host's configuration and the other hosts (`gather`, all I/O there is),
//! and then judges them (`judge`, functions of these facts and of nothing else): one [`Finding`] a line, with its cause and what
//! to do. Nothing is changed but a temporary file, whose syncs are measured, and nobody is asked but whom the configuration names.
//! [`Certificates::look`] tells every certificate of a host. [`Status::ask`] does the same with a cluster, by what one of its hosts answers.

mod certificates;
mod facts;
mod finding;
mod gather;
mod judge;
mod plan;
mod report;
mod status;

pub use certificates::Certificates;
pub use finding::{Finding, Grade, Group};
pub use report::{Report, Wish};
pub use status::{
    CLUSTER_PATH, CertificateSays, ClusterSays, HOST_PATH, HostAnswer, HostSays, LeaseSays, MemberSays,
    NoStatus, Status,
};
