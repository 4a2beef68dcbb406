//! Processes that left their group and so outlived their container: found by a variable that all of a pod's
//! processes inherit.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// The variable: the pod's own folder.
pub(crate) const POD_FOLDER: &str = "HOLDFAST_POD_FOLDER";

/// Kills every process of the pod with this folder, or of all pods below it.
pub(crate) fn kill_leftovers(folder: &Path) {
    let start = [POD_FOLDER.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let is_of = |variable: &[u8]| {
        variable.strip_prefix(start.as_slice()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.map(Pid::from_raw).filter(|pid| *pid != getpid()) else { continue };
        // Another user's processes can't be read; they are not ours either.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if environment.split(|byte| *byte == 0).any(is_of) {
            tracing::info!(%pid, folder = %folder.display(), "a process outlived its container: killed");
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}
