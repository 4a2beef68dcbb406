//! The runtime `host`: a container is a process of this host in a session of its own.

mod isolation;
mod mount_step;
mod mounts;
mod process;
mod security;

pub(crate) use isolation::Isolation;
pub(crate) use mounts::{MountPlan, View, plan};
pub(crate) use process::{Command, spawn};
pub(crate) use security::{Powers, Security};
