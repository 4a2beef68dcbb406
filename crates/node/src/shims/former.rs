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

use super::link::Link;
use crate::container::end_leftovers;
use crate::shim::wire::{Ask, Told};

/// How long a shim may take to end its pod before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// The shims that live, by the uids of their pods, with what they hold.
pub(super) async fn living(pods: &Path) -> Vec<(String, Arc<Link>, Option<Vec<Told>>)> {
    let folders = fs::read_dir(pods).into_iter().flatten().flatten();
    let opened = folders.filter_map(|entry| {
        let uid = entry.file_name().to_str()?.to_owned();
        Some(async move {
            let (link, told) = Link::open(&entry.path(), None).await.ok()?;
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
/// pods still run by it.
pub(crate) async fn end_strays(pods: PathBuf, needed: &[SocketAddr]) -> Option<LeasePage> {
    let mut living = living(&pods).await;
    let is_taken = |address: &SocketAddr| {
        let bound = TcpListener::bind(address);
        bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
    };
    if !living.is_empty() && needed.iter().any(is_taken) {
        tracing::warn!("one of the host's own ports is taken: the pods of its former life are ended");
        join_all(living.drain(..).map(|(_, link, _)| end(link))).await;
    }
    // The next epoch begins once nothing is left of the former ones.
    let is_over = |link: &Link| link.bond().is_some_and(|bond| bond.page.ends(bond.epoch).is_none());
    let (over, living): (Vec<_>, Vec<_>) = living.into_iter().partition(|(_, link, _)| is_over(link));
    join_all(over.into_iter().map(|(_, link, _)| end(link))).await;
    let page = living.iter().find_map(|(_, link, _)| Some(link.bond()?.page.clone()));
    let spared: BTreeSet<String> = living.into_iter().map(|(uid, ..)| uid).collect();
    end_leftovers(pods, move |uid| spared.contains(uid)).await;
    page
}
