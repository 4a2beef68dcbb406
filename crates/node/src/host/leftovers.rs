//! Processes that left their group and so outlived their container: found by a variable that all of a pod's
//! processes inherit.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

/// The variable: the pod's own folder.
pub(crate) const POD_FOLDER: &str = "HOLDFAST_POD_FOLDER";

/// How soon it is asked again whether a killed process is dead, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Kills every process of the pod with this folder, or of all pods below it, and returns once all are dead: what
/// comes after (the pod's end is confirmed, its address given away) relies on that.
pub(crate) async fn end_leftovers(folder: PathBuf) {
    let mut doomed: Vec<Pid> = Vec::new();
    let mut patience = PATIENCE.0;
    loop {
        let (place, mut dying) = (folder.clone(), std::mem::take(&mut doomed));
        let round = tokio::task::spawn_blocking(move || {
            dying.retain(|pid| is_alive(*pid));
            // Again each time: a process that was killed may have had a child just before.
            kill_all(&place, &mut dying);
            dying
        });
        match round.await {
            Ok(left) if left.is_empty() => return,
            Ok(left) => doomed = left,
            Err(error) => return tracing::error!(%error, "leftover processes can't be looked for"),
        }
        tokio::time::sleep(patience).await;
        patience = (patience * 2).min(PATIENCE.1);
    }
}

fn kill_all(folder: &Path, dying: &mut Vec<Pid>) {
    let start = [POD_FOLDER.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let is_of = |variable: &[u8]| {
        variable.strip_prefix(start.as_slice()).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    };
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.map(Pid::from_raw).filter(|pid| *pid != getpid()) else { continue };
        // Another user's processes can't be read; they are not ours either.
        let Ok(environment) = fs::read(entry.path().join("environ")) else { continue };
        if !dying.contains(&pid) && environment.split(|byte| *byte == 0).any(is_of) {
            tracing::info!(%pid, folder = %folder.display(), "a process outlived its container: killed");
            let _ = kill(pid, Signal::SIGKILL);
            dying.push(pid);
        }
    }
}

/// A process that only waits for its parent to ask how it ended is dead.
fn is_alive(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    let state = stat.ok().and_then(|stat| stat.rsplit(')').next()?.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}
