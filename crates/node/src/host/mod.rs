//! The runtime `host`: a container is a process of this host in a session of its own.

mod beneath;
pub(crate) mod cgroup;
mod environment;
mod expand;
mod isolation;
mod last_words;
mod leftovers;
mod link;
mod log_file;
mod log_read;
mod mount_step;
mod mounts;
mod names;
mod process;
mod quantity;
mod rights;
mod runtime;
mod security;
mod service_links;
mod terminal;
mod volumes;

pub(crate) use beneath::ConfinedPath;
pub(crate) use environment::{Missing, Sources, environment};
pub(crate) use expand::expand;
pub(crate) use isolation::Isolation;
pub(crate) use last_words::last_words;
pub(crate) use leftovers::{POD_FOLDER, end_leftovers};
pub(crate) use log_file::{LONGEST_TAIL, Lines, LogFile, LogProgress, QUIET, Source, Tail};
pub(crate) use log_read::{LogCursor, LogOptions, since_cut};
pub(crate) use mounts::{Access, Bind, MountPlan, View, plan};
pub(crate) use names::{name_files, write_name_files};
pub(crate) use process::{Command, Streams, signal_group, spawn, stop_signal};
pub(crate) use runtime::{HostRuntime, end_strays};
pub(crate) use security::{Powers, Security, folder_owner};
pub(crate) use terminal::{Size, Terminal, open_terminal};
pub(crate) use volumes::{materialise, refresh, volume_path};
