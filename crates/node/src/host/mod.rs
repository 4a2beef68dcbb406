//! The runtime `host`: a container is a process of this host in a session of its own.

mod environment;
mod expand;
mod isolation;
mod leftovers;
mod log_file;
mod log_read;
mod mounts;
mod names;
mod process;
mod quantity;
mod service_links;
mod terminal;
mod volumes;

pub(crate) use environment::{Missing, Sources, environment};
pub(crate) use expand::expand;
pub(crate) use isolation::Isolation;
pub(crate) use leftovers::{POD_FOLDER, end_leftovers, end_session};
pub(crate) use log_file::{LogFile, LogProgress, Source, Tail, capture};
pub(crate) use log_read::{LogCursor, LogOptions, since_cut};
pub(crate) use mounts::{Bind, plan};
pub(crate) use names::{name_files, write_name_files};
pub(crate) use process::{Command, Process, ProcessError, Spawner, Streams, outputs, signal_group};
pub(crate) use terminal::{Size, Terminal};
pub(crate) use volumes::{materialise, refresh, volume_path};
