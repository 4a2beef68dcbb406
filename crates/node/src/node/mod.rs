//! The host as an object: what the machine is, and the Node that says so.

mod heartbeat;
mod lease;
mod machine_info;
mod registration;

pub(crate) use heartbeat::{Epochs, keep_registered};
pub(crate) use machine_info::{MachineInfo, read_machine};
pub(crate) use registration::NodeIdentity;
