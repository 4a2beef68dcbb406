//! The shims that a former agent of this host has left.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use membership::LeasePage;

use super::bond::{GREETING, end_now, marked};
use super::link::Link;
use crate::container::end_leftovers;
use crate::shim::wire::{Ask, Told};

/// How long a shim may take to end its pod before it is killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The shims that live, by the uids of their pods, with what they hold; nothing of those that don't say it within `patience`, or speak otherwise.
pub(super) async fn living(pods: &Path, patience: Duration) -> Vec<(String, Arc<Link>, Option<Vec<Told>>)> {
    let folders = fs::read_dir(pods).into_iter().flatten().flatten();
    let opened = folders.filter_map(|entry| {
        let uid = entry.file_name().to_str()?.to_owned();
        Some(async move {
            let (link, told) = Link::open(&entry.path(), None, patience).await.ok()?;
            Some((uid, link, told))
        })
    });
    join_all(opened).await.into_iter().flatten().collect()
}

/// Ends a shim with all of its pod.
pub(super) async fn end(link: Arc<Link>) {
    drop(link.send(&Ask::End, Vec::new()));
    if tokio::time::timeout(PATIENCE, link.over()).await.is_err() {
        link.kill();
        link.over().await;
    }
}

/// Ends what a former agent's pods left behind and no shim holds. Where one of the addresses that the host is to
/// listen at is taken, nothing of the former life stays: it may be a pod that took it. Answers where it stands until when the host's lease holds, if
/// pods still run by it. What waits for a disk, and so neither answers nor dies, holds up nobody: the host has a lease to renew.
pub(crate) async fn end_strays(pods: PathBuf, needed: &[SocketAddr]) -> Option<LeasePage> {
    let mut living = living(&pods, GREETING).await;
    let is_taken = |address: &SocketAddr| {
        let bound = TcpListener::bind(address);
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    if !living.is_empty() && needed.iter().any(is_taken) {
        tracing::warn!("one of the host's own ports is taken: the pods of its former life are ended");
        let ends = join_all(living.drain(..).map(|(_, link, _)| end(link)));
        let _ = tokio::time::timeout(PATIENCE + GREETING, ends).await;
    }
    let (mut over, mut spared, mut page) = (BTreeSet::new(), BTreeSet::new(), None);
    for (uid, link, _) in living {
        match link.bond() {
            Some(bond) if bond.is_over() => {
                over.insert(uid);
            }
            bond => {
                page = page.or_else(|| Some(bond?.page.clone()));
                spared.insert(uid);
            }
        }
    }
    // The next epoch begins once nothing is left of the former ones. It does so here if nobody hands the present one on: then a shim that doesn't say by
    // which its pod runs may not stay either.
    if page.is_none() {
        over.extend(marked(&pods));
    }
    spared.retain(|uid| !over.contains(uid));
    end_now(&pods, over).await;
    let rest = end_leftovers(pods, move |uid| spared.contains(uid));
    if tokio::time::timeout(PATIENCE, rest).await.is_err() {
        tracing::warn!(
            "processes of a former life that were killed wait for a disk: they end when it answers"
        );
    }
    page
}

/// Ends the pods of a host that runs no more, whatever holds them, with all that they left behind.
pub(crate) async fn end_all(pods: PathBuf) {
    let ends = living(&pods, GREETING).await.into_iter().map(|(_, link, _)| end(link));
    if tokio::time::timeout(PATIENCE + GREETING, join_all(ends)).await.is_err() {
        tracing::warn!("shims that were killed wait for a disk: they end when it answers");
    }
    let folders = fs::read_dir(&pods).into_iter().flatten().flatten();
    let uids = folders.filter_map(|folder| folder.file_name().into_string().ok()).collect();
    end_now(&pods, uids).await;
}
