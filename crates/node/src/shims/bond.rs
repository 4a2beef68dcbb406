//! The lease that pods of this host stop with, as the agent gives it to their shims.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use membership::LeasePage;
use membership::lease::Epoch;

use super::link::Link;
use crate::container::end_leftovers;

/// The file in a pod's folder that says that the pod stops with the lease. It is there before the shim is, and goes with the folder: so whoever
/// looks for what may be left of an epoch finds it also where no shim answers any more.
const MARK: &str = "stops-with-lease";

/// What a shim that stops with the lease is started with.
#[derive(Debug, Clone)]
pub(super) struct Bond {
    pub(super) epoch: Epoch,
    pub(super) page: LeasePage,
}

/// Notes in a pod's folder how the pod is bound.
pub(super) fn mark(folder: &Path, epoch: Option<Epoch>) -> io::Result<()> {
    let file = folder.join(MARK);
    match epoch {
        Some(epoch) => fs::write(file, epoch.to_string()),
        None => match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

/// The pods that stop with the lease, by their uids.
fn marked(pods: &Path) -> Vec<String> {
    let folders = fs::read_dir(pods).into_iter().flatten().flatten();
    let is_marked = |uid: &String| pods.join(uid).join(MARK).exists();
    folders.filter_map(|folder| folder.file_name().into_string().ok()).filter(is_marked).collect()
}

/// Returns once nothing is left of the pods that stop with a lease that is over. `pods` is the folder of all pods' folders.
pub(crate) async fn end_of_bound(pods: PathBuf) {
    let bound = marked(&pods);
    if bound.is_empty() {
        return;
    }
    // Their keepers kill them; until then one may still answer.
    let ends = bound.iter().map(|uid| pods.join(uid)).map(|folder| async move {
        if let Ok((link, _)) = Link::open(&folder, None).await {
            link.over().await;
        }
    });
    join_all(ends).await;
    // What a shim left that was killed itself.
    end_leftovers(pods, move |uid| !bound.iter().any(|bound| bound == uid)).await;
}
