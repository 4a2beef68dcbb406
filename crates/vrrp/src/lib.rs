//! Virtual routers, of VRRP version 3 for IPv4 (RFC 5798, RFC 9568): what they say to each other and what they decide, without I/O.
//!
//! [`Settings`] are what a user writes down; [`Settings::problems`] is all that can't work in them. [`Routers`] are the virtual
//! routers of one host: events and the time go in, [`Command`]s come out, which the room `network` carries out. Beneath them lie
//! the machine of the RFC for one virtual router ([`state`]), what several do as one ([`group`]: keepalived's sync groups), what
//! scripts and links say about a host ([`track`]), and the message ([`packet`]).
//!
//! What keepalived adds to the RFC (tracking, groups, faults, notices) is as keepalived has it, so that both can share a group;
//! where it isn't, the item says so.

mod check;
pub mod group;
pub mod packet;
mod routers;
mod settings;
pub mod state;
pub mod track;

pub use check::Problem;
pub use group::Phase;
pub use packet::{Advert, Invalid};
pub use routers::{Command, Event, Kind, LinkState, Notice, Routers};
pub use settings::{Instance, Script, Settings, SyncGroup, Track, TrackedLink, TrackedScript};
