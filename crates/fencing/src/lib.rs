//! What makes sure that a host has stopped what must not run twice, beyond its lease, by which that stops itself: the machine's watchdog
//! ([`Watchdog`]), which resets a host that hangs or doesn't stop in time, and fence agents ([`Agent`]), which switch it off.

mod agents;
mod watchdog;

pub use agents::{Agent, Book, Problem, Seen, Step};
pub use watchdog::{Device, Options, State, SystemDevice, Watchdog, run_watchdog_keeper};
