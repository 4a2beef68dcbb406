//! Which runtime of others had this host's pods: a host that has another one now, or none, ends what is left in it. Nobody would
//! look after that, and the pods begin anew.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use cri::{Client, Endpoint, Failure};
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::NODE;
use super::cni::{Places, uninstall};

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is kept of one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kept {
    endpoint: String,
    /// The mark that this host's pods bear there.
    node: String,
    /// Where something was written for it, so that its pods have this host's network.
    #[serde(default)]
    networks: Vec<Places>,
}

impl Kept {
    fn new(endpoint: &Endpoint, node: &str) -> Self {
        Kept { endpoint: endpoint.to_string(), node: node.to_owned(), networks: Vec::new() }
    }

    fn is_of(&self, other: &Self) -> bool {
        (&self.endpoint, &self.node) == (&other.endpoint, &other.node)
    }
}

fn read(file: &Path) -> Vec<Kept> {
    fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

fn write(file: &Path, all: &[Kept]) -> io::Result<()> {
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, serde_json::to_vec(all)?)?;
    fs::rename(unfinished, file)
}

/// Keeps in a file that a runtime is about to have pods of this host. Those in which pods may still be stay there.
///
/// # Errors
/// If that can't be written.
pub(crate) fn keep(file: &Path, endpoint: &Endpoint, node: &str) -> io::Result<()> {
    let (mut all, kept) = (read(file), Kept::new(endpoint, node));
    if all.iter().any(|known| known.is_of(&kept)) {
        return Ok(());
    }
    all.push(kept);
    write(file, &all)
}

/// Notes where something is about to be written for a runtime that is kept.
///
/// # Errors
/// If that can't be noted.
pub(super) fn note_network(file: &Path, endpoint: &Endpoint, node: &str, places: &Places) -> io::Result<()> {
    let (mut all, kept) = (read(file), Kept::new(endpoint, node));
    let Some(known) = all.iter_mut().find(|known| known.is_of(&kept)) else {
        return Err(io::Error::other("the runtime isn't noted as this host's"));
    };
    if known.networks.contains(places) {
        return Ok(());
    }
    known.networks.push(places.clone());
    write(file, &all)
}

/// The runtimes that a file names, in which pods of this host may be.
pub(crate) fn noted(file: &Path) -> Vec<String> {
    read(file).into_iter().map(|kept| kept.endpoint).collect()
}

/// Ends the pods in the runtimes that a file names, but for this one, and forgets those then.
pub(crate) async fn end_former(file: &Path, now: Option<&Endpoint>) {
    let all = read(file);
    let stay = join_all(all.iter().map(|kept| stays(kept, now))).await;
    let left: Vec<Kept> =
        all.iter().zip(stay).filter(|(_, stays)| *stays).map(|(kept, _)| kept.clone()).collect();
    if left.len() < all.len()
        && let Err(why) = write(file, &left)
    {
        tracing::warn!(%why, "that this host's former runtime is empty can't be noted");
    }
}

/// Whether a runtime may still have pods of this host, once these were ended unless it is this one.
async fn stays(kept: &Kept, now: Option<&Endpoint>) -> bool {
    let endpoint = kept.endpoint.parse::<Endpoint>().ok();
    let Some(endpoint) = endpoint.filter(|endpoint| Some(endpoint) != now) else { return true };
    let runtime = endpoint.to_string();
    match tokio::time::timeout(PATIENCE, end_all(&Client::at(&endpoint), kept.node.clone())).await {
        Ok(Ok(count)) => {
            tracing::info!(runtime, count, "the pods in this host's former runtime are ended");
            // Not before: what still has a sandbox there needs the plugin to end it.
            let removed = kept.networks.iter().try_for_each(|places| uninstall(places, &kept.node));
            match removed {
                Ok(()) => return false,
                Err(why) => {
                    tracing::error!(runtime, %why, "what was written for this host's former runtime stays");
                }
            }
        }
        Ok(Err(failure)) => {
            tracing::error!(runtime, %failure, "pods in this host's former runtime may run on")
        }
        Err(_) => {
            tracing::error!(runtime, "pods in this host's former runtime may run on: it doesn't answer")
        }
    }
    true
}

async fn end_all(client: &Client, node: String) -> Result<usize, Failure> {
    let all = client.pod_sandboxes([(NODE.to_owned(), node)].into()).await?;
    for sandbox in &all {
        client.stop_pod_sandbox(&sandbox.id).await?;
        client.remove_pod_sandbox(&sandbox.id).await?;
    }
    Ok(all.len())
}
