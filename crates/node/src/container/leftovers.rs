//! Processes that outlived their pod's shim, or that no shim holds any more. They are found by a variable that all of a
//! pod's processes inherit, and, should one have dropped it, by what is mounted for it.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};
use tracing::info_span;

/// The variable: the pod's own folder.
pub(crate) const POD_FOLDER: &str = "HOLDFAST_POD_FOLDER";

/// How soon it is asked again whether a killed process is dead, at first and at most.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));

/// Kills every process of the pod with this folder, or of all pods below it but the spared ones, and returns once all are
/// dead: what comes after (the pod's end is confirmed, its address given away) relies on that.
pub(crate) async fn end_leftovers(folder: PathBuf, is_spared: impl Fn(&str) -> bool + Send + Sync + 'static) {
    let name = [POD_FOLDER.as_bytes(), b"="].concat();
    let mounted = Mounted::of(&folder);
    end_all(move |process| {
        // Another user's processes can't be read; they are not ours either.
        let Ok(environment) = fs::read(process.join("environ")) else { return false };
        let told = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(&name[..]));
        let beneath = match told {
            Some(path) => path.strip_prefix(folder.as_os_str().as_bytes()).map(<[u8]>::to_vec),
            // The table of mounts is long: it is read only where the variable is gone.
            None => mounted.as_ref().and_then(|mounted| mounted.seen_by(process)).map(String::into_bytes),
        };
        let found = beneath.is_some_and(|beneath| {
            let mut parts = beneath.split(|byte| *byte == b'/');
            let is_here = parts.next().is_some_and(<[u8]>::is_empty);
            is_here && !parts.next().is_some_and(|uid| is_spared(&String::from_utf8_lossy(uid)))
        });
        if found {
            tracing::info!(process = %process.display(), "a process outlived its container: killed");
        }
        found
    })
    .await;
}

/// What a pod's folder is in the mount tables of its processes: each sees its own file for last words.
struct Mounted {
    /// This process' own mount namespace, in which no pod is.
    namespace: PathBuf,
    /// `major:minor` of the file system.
    device: String,
    /// The folder's path within the file system, as the tables write it.
    path: String,
}

impl Mounted {
    fn of(folder: &Path) -> Option<Self> {
        let namespace = fs::read_link("/proc/self/ns/mnt").ok()?;
        let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let folder = escaped(folder.to_str()?);
        // The mount that the folder lies on: the one that is deepest, and of those at one place the last.
        let mounts = table.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (device, root, point) = (fields.next()?, fields.next()?, fields.next()?);
            let below = folder.strip_prefix(point.trim_end_matches('/'))?;
            (below.is_empty() || below.starts_with('/')).then_some((point.len(), device, root, below))
        });
        let (_, device, root, below) = mounts.max_by_key(|(depth, ..)| *depth)?;
        let path = format!("{}{below}", root.trim_end_matches('/'));
        Some(Mounted { namespace, device: device.to_owned(), path })
    }

    /// What is mounted for a process beneath the folder.
    fn seen_by(&self, process: &Path) -> Option<String> {
        match fs::read_link(process.join("ns/mnt")) {
            Ok(namespace) if namespace != self.namespace => {}
            _ => return None,
        }
        let table = fs::read_to_string(process.join("mountinfo")).unwrap_or_default();
        table.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(2);
            let (device, root) = (fields.next(), fields.next().unwrap_or_default());
            let below = root.strip_prefix(&self.path).unwrap_or_default();
            (device == Some(&self.device) && is_of_last_words(below)).then(|| below.to_owned())
        })
    }
}

/// Whether a path beneath a pod's folder, or beneath that of all pods, is the place of last words. A volume may be called so too, of a pod in a runtime
/// of others, which has no shim; processes that follow the host's mounts see what the host mounts of that.
fn is_of_last_words(below: &str) -> bool {
    let mut parts = below.strip_prefix('/').into_iter().flat_map(|below| below.split('/'));
    match (parts.next(), parts.next()) {
        (Some("messages"), _) => true,
        (Some(first), Some("messages")) => first != "volumes",
        _ => false,
    }
}

/// A path as the mount tables write it.
fn escaped(path: &str) -> String {
    path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011").replace('\n', "\\012")
}

async fn end_all(is_doomed: impl Fn(&Path) -> bool + Send + Sync + 'static) {
    let is_doomed = Arc::new(is_doomed);
    let mut doomed: Vec<Pid> = Vec::new();
    let mut patience = PATIENCE.0;
    loop {
        let (is_doomed, mut dying) = (is_doomed.clone(), std::mem::take(&mut doomed));
        let round = tasks::blocking(info_span!("end leftovers"), move || {
            dying.retain(|pid| is_alive(*pid));
            // Again each time: a process that was killed may have had a child just before.
            kill_all(&*is_doomed, &mut dying);
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

fn kill_all(is_doomed: &impl Fn(&Path) -> bool, dying: &mut Vec<Pid>) {
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = pid.map(Pid::from_raw).filter(|pid| *pid != getpid()) else { continue };
        if !dying.contains(&pid) && is_doomed(&entry.path()) {
            let _ = kill(pid, Signal::SIGKILL);
            dying.push(pid);
        }
    }
}

/// A process that only waits for its parent to ask how it ended is dead.
fn is_alive(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_running(&stat))
}

fn is_running(stat: &str) -> bool {
    let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_for_last_words_marks_a_process() {
        for (below, expected) in [
            ("/messages/main", true),
            ("/uid/messages/main", true),
            ("/volumes/messages", false),
            ("/volumes/messages/part", false),
            ("/uid/volumes/messages", false),
            ("/foreign-messages/main", false),
            ("/messages", true),
            ("", false),
        ] {
            assert_eq!(is_of_last_words(below), expected, "{below}");
        }
    }
}
