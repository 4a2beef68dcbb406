//! A pod's life as decisions without I/O: what is remembered, what to do next, and what to say of it.

mod back_off;
mod decide;
mod error;
mod former;
mod names;
mod record;
mod resize;
mod status;
#[cfg(test)]
mod tests;

pub(crate) use decide::{Action, decide, is_over, must_end, spec_grace};
pub(crate) use error::{LEASE_AWAITED, NoImage, PrepareError, StartError};
pub(crate) use former::{resume, take_over};
pub(crate) use names::{
    all_containers, container, container_id, domain, ephemeral_containers, hostname, is_sidecar, subject,
    target, uid,
};
pub(crate) use record::{ContainerEnd, Failure, PodRecord, Preparation, ProbeKind, Stage, Then};
pub(crate) use resize::{Allocation, Change, Pending, Resized, Resizing, judge, message};
pub(crate) use status::{WITHOUT_LEASE, difference, is_ready, phase, status, stops_with, without_nulls};
