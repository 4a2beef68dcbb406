//! The embedded engine's parts, for simulators: a program uses [`Embedded`](crate::Embedded), which puts
//! them together with threads, sockets and a clock. These promise nothing to anybody else and change with
//! the engine.
//!
//! A simulator claims a disk, opens a log on it, makes a [`Core`] of what was recovered, hands it
//! [`Input`]s, and does with its [`Effects`] what it likes to call a world.

pub use super::command::{Command, RequestId, Response};
pub use super::core::{Answer, Core, Effects, Happening, Input, Outgoing, Settings};
pub use super::disk::{Disk, DiskFile, is_full};
pub use super::folder::{Claim, Claimant, claim, retire, settle};
pub use super::image::{Image, ImageError, PIECE};
pub use super::log::{Log, LogError, Persist, Recovered, save};
pub use super::membership::{MemberChange, Membership};
pub use super::wire::{Frame, HEADER};
