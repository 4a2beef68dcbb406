//! The lease that pods of this host stop with, as the agent gives it to their shims.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use membership::LeasePage;
use membership::lease::Epoch;
use tracing::info_span;

use super::link::{Link, kill_shims};
use crate::container::{cgroup, end_leftovers};
use crate::shim::wire::Ask;

/// The file in a pod's folder that says that the pod stops with the lease. It is there before the shim is, and goes with the folder: so the agent that
/// looks for what may be left of an epoch finds it also where no shim answers any more. In it is the folder of the cgroups of the host's pods, if they
/// have any.
const MARK: &str = "stops-with-lease";
/// How long a shim may take to say who it is while others wait for it. It takes milliseconds, unless it is stopped or waits for a disk.
pub(super) const GREETING: Duration = Duration::from_secs(1);
/// How long keepers, the dying, and then shims that were killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a shim that stops with the lease is started with.
#[derive(Debug, Clone)]
pub(super) struct Bond {
    pub(super) epoch: Epoch,
    pub(super) page: LeasePage,
}

impl Bond {
    /// Whether that lease is over.
    pub(super) fn is_over(&self) -> bool {
        self.page.ends(self.epoch).is_none()
    }
}

/// Notes in a pod's folder whether the pod is bound.
pub(super) fn mark(folder: &Path, is_bound: bool, cgroups: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let file = folder.join(MARK);
    if is_bound {
        let of = |cgroups: BorrowedFd<'_>| fs::read_link(format!("/proc/self/fd/{}", cgroups.as_raw_fd()));
        let place = cgroups.and_then(|cgroups| of(cgroups).ok()).unwrap_or_default();
        return fs::write(file, place.as_os_str().as_bytes());
    }
    match fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether the pod with this folder stops with the lease.
pub(super) fn is_marked(folder: &Path) -> bool {
    folder.join(MARK).exists()
}

/// The pods that stop with the lease, by their uids.
pub(super) fn marked(pods: &Path) -> BTreeSet<String> {
    let folders = fs::read_dir(pods).into_iter().flatten().flatten();
    let uids = folders.filter_map(|folder| folder.file_name().into_string().ok());
    uids.filter(|uid| is_marked(&pods.join(uid))).collect()
}

/// Returns once nothing runs of the pods that stop with a lease that is over. `pods` is the folder of all pods' folders.
pub(crate) async fn end_of_bound(pods: PathBuf) {
    let bound = marked(&pods);
    end_now(&pods, bound).await;
}

/// Ends pods whether their shims answer or not, and returns once nothing of them runs. What was killed and isn't dead by then waits for a disk,
/// and its programs never go on: other pods don't wait for that.
pub(super) async fn end_now(pods: &Path, uids: BTreeSet<String>) {
    if uids.is_empty() {
        return;
    }
    let folders: Vec<PathBuf> = uids.iter().map(|uid| pods.join(uid)).collect();
    let open = |folder: PathBuf| async move { Link::open(&folder, None, GREETING).await.ok() };
    let links: Vec<_> = join_all(folders.iter().cloned().map(open)).await.into_iter().flatten().collect();
    // First those that can end by themselves: an agent that hears of its container's end only from the shim's own knows that it was for the lease.
    let heard = links.iter().filter(|(_, told)| told.is_some()).map(|(link, _)| link.clone());
    let heard: Vec<Arc<Link>> = heard.collect();
    for link in &heard {
        drop(link.send(&Ask::End, Vec::new()));
    }
    are_over(heard).await;
    let of = folders.clone();
    let kill = move || of.iter().for_each(|folder| kill_cgroup(folder));
    if tasks::blocking(info_span!("kill cgroups"), kill).await.is_err() {
        tracing::warn!("not all cgroups of bound pods were killed: their processes are looked for");
    }
    let rest = end_leftovers(pods.to_owned(), move |uid| !uids.contains(uid));
    if tokio::time::timeout(PATIENCE, rest).await.is_err() {
        tracing::warn!("processes of pods that were killed wait for a disk: they end when it answers");
    }
    let links: Vec<Arc<Link>> = links.into_iter().map(|(link, _)| link).collect();
    if links.iter().all(|link| link.is_over()) {
        return;
    }
    let killed = tasks::blocking(info_span!("kill shims"), move || kill_shims(&folders));
    if killed.await.is_err() || !are_over(links).await {
        tracing::warn!("the shims of pods that were killed wait for a disk: they end when it answers");
    }
}

/// Whether these shims are gone in time.
async fn are_over(links: Vec<Arc<Link>>) -> bool {
    let ends = join_all(links.into_iter().map(|link| async move { link.over().await }));
    tokio::time::timeout(PATIENCE, ends).await.is_ok()
}

/// Kills what is in the cgroups of a bound pod, where it has any: also what hides from those who look for it. Blocks.
fn kill_cgroup(folder: &Path) {
    let place = fs::read(folder.join(MARK)).unwrap_or_default();
    let (true, Some(uid)) = (place.starts_with(b"/"), folder.file_name().and_then(OsStr::to_str)) else {
        return;
    };
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let pods = File::options().read(true).custom_flags(flags).open(OsStr::from_bytes(&place));
    if let Err(error) = pods.and_then(|pods| cgroup::kill_pod(pods.as_fd(), uid)) {
        tracing::warn!(uid, %error, "a pod's cgroup can't be killed");
    }
}
