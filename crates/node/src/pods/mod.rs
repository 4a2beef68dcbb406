//! The driver of pods: feeds decisions with what happens, and carries out what they say.

mod acting;
mod bundle;
mod closing;
mod command;
mod desk;
mod entry;
mod folder;
mod foreign;
mod handler;
mod image;
mod in_memory;
mod life;
mod live;
mod mirrors;
mod pod_host;
mod residents;
mod resizing;
mod sandbox;
mod single;
mod static_book;
mod sysctls;
mod tokens;
mod upkeep;
mod user_ranges;
mod writing;

pub(crate) use desk::{Desk, Stop};
pub(crate) use folder::Folders;
pub(crate) use life::Report;
pub(crate) use live::{Live, LiveContainers};
pub(crate) use pod_host::PodHost;
pub(crate) use residents::Residents;
pub(crate) use single::SINGLE;
pub(crate) use static_book::StaticBook;
pub(crate) use tokens::{PodTokens, TokenBook, kind};
pub(crate) use user_ranges::UserRanges;
