//! The switch of a cluster on loopback: the addresses that move between hosts are kept here, and each new
//! connection goes to the host that announced its address. A frozen host keeps its sockets; here its silence is
//! passed on as silence.

mod announcement;
mod run;
mod table;
mod udp;

pub use announcement::{AddressKind, Announcement, Entry, Protocol};
pub use run::{Error, Switch, SwitchAddresses};

#[cfg(test)]
mod tests;
