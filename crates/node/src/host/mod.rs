//! The runtime `host`: a container is a process of this host in a session of its own.

mod beneath;
mod environment;
mod expand;
mod isolation;
mod last_words;
mod leftovers;
mod log_file;
mod log_read;
mod mount_step;
mod mounts;
mod names;
mod process;
mod quantity;
mod rights;
mod security;
mod service_links;
mod terminal;
mod volumes;

pub(crate) use beneath::Place;
pub(crate) use environment::{Missing, Sources, environment};
pub(crate) use expand::expand;
pub(crate) use isolation::Isolation;
pub(crate) use last_words::last_words;
pub(crate) use leftovers::{POD_FOLDER, end_leftovers, end_session};
pub(crate) use log_file::{LogFile, LogProgress, Source, Tail, capture};
pub(crate) use log_read::{LogCursor, LogOptions, since_cut};
pub(crate) use mounts::{Access, Bind, View, plan};
pub(crate) use names::{name_files, write_name_files};
pub(crate) use process::{
    Command, Process, ProcessError, Spawner, Streams, outputs, signal_group, stop_signal,
};
pub(crate) use security::{Powers, Security, folder_owner};
pub(crate) use terminal::{Size, Terminal};
pub(crate) use volumes::{materialise, refresh, volume_path};
