//! The driver of pods: feeds decisions with what happens, and carries out what they say.

mod acting;
mod command;
mod desk;
mod entry;
mod folder;
mod host;
mod life;
mod running;
mod tokens;
mod writing;

pub(crate) use desk::Desk;
pub(crate) use folder::Folders;
pub(crate) use host::Host;
pub(crate) use running::{Live, Running};
pub(crate) use tokens::{PodTokens, TokenBook, kind};
