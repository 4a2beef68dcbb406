//! The machine's watchdog: a device that resets the machine unless somebody feeds it (Linux' watchdog API,
//! `Documentation/watchdog/watchdog-api.rst`).
//!
//! A process of its own feeds it, the keeper: only while the host's lease holds by what was heard lately, or nothing is left on the host that must
//! not run twice. So a machine that hangs, or doesn't stop in time what it must, is reset before the others have counted its lease to the end
//! ([`policy`]). Where all stops in time, as it does if only the network is broken, nothing is reset.

mod device;
mod host;
mod keeper;
mod policy;

pub use device::{Device, SystemDevice};
pub use host::{Options, State, Watchdog};
pub use keeper::run_watchdog_keeper;
