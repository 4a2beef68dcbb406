//! What a container has whatever runs it: variables, volumes, names, logs, cgroups, and a user with rights.

mod app_armor;
pub(crate) mod beneath;
mod bind;
pub(crate) mod cgroup;
mod claims;
mod environment;
mod expand;
mod identity;
mod last_words;
mod leftovers;
mod log_file;
mod log_read;
mod mount_table;
pub(crate) mod mounting;
mod names;
mod ownership;
mod quantity;
mod removal;
pub(crate) mod rights;
mod service_links;
mod signals;
mod terminal;
mod volumes;

pub(crate) use app_armor::{AskedProfile, needs_app_armor};
pub(crate) use beneath::ConfinedPath;
pub(crate) use bind::{Access, Bind, Origin, Propagation};
pub(crate) use claims::{CSI_VOLUMES, csi_claim, csi_mount};
pub(crate) use environment::{Missing, Sources, environment, secret};
pub(crate) use expand::expand;
pub(crate) use identity::{Accounts, Groups, folder_owner, id, more, of_pod, volume_group};
pub(crate) use last_words::last_words;
pub(crate) use leftovers::{POD_FOLDER, end_leftovers};
pub(crate) use log_file::{
    LARGEST_FILE, LONGEST_TAIL, Lines, LogFile, LogProgress, QUIET, Source, Tail, make_room, set_aside,
};
pub(crate) use log_read::{LogCursor, LogOptions, since_cut};
pub(crate) use mount_table::{is_mounted, is_shared, unmount_beneath};
pub(crate) use names::{name_files, write_name_files};
pub(crate) use ownership::give_to_group;
pub(crate) use quantity::in_units;
pub(crate) use removal::remove_folder;
pub(crate) use signals::{let_through, signal_group, stop_signal};
pub(crate) use terminal::{Resize, Size, Terminal, open_terminal};
pub(crate) use volumes::{is_in_memory, is_writable, materialise, refresh, volume_path};
