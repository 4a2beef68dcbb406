//! Which runtime of others had this host's pods: a host that has another one now, or none, ends what is left in it. Nobody would
//! look after that, and the pods begin anew.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use cri::{Client, Endpoint, Failure};
use serde::{Deserialize, Serialize};

use super::NODE;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is kept of it.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    endpoint: String,
    /// The mark that this host's pods bear there.
    node: String,
}

/// Keeps in a file that a runtime is about to have pods of this host.
///
/// # Errors
/// If that can't be written.
pub(crate) fn keep(file: &Path, endpoint: &Endpoint, node: &str) -> io::Result<()> {
    let kept = Kept { endpoint: endpoint.to_string(), node: node.to_owned() };
    fs::write(file, serde_json::to_vec(&kept)?)
}

/// Ends the pods in the runtime that a file names, unless that is this one, and forgets it then.
pub(crate) async fn end_former(file: &Path, now: Option<&Endpoint>) {
    let Some(kept) = fs::read(file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok()) else {
        return;
    };
    let Some(endpoint) = kept.endpoint.parse::<Endpoint>().ok().filter(|endpoint| Some(endpoint) != now)
    else {
        return;
    };
    let runtime = endpoint.to_string();
    match tokio::time::timeout(PATIENCE, end_all(&Client::at(&endpoint), kept.node)).await {
        Ok(Ok(count)) => {
            tracing::info!(runtime, count, "the pods in this host's former runtime are ended");
            let _ = fs::remove_file(file);
        }
        Ok(Err(failure)) => {
            tracing::error!(runtime, %failure, "pods in this host's former runtime may run on")
        }
        Err(_) => {
            tracing::error!(runtime, "pods in this host's former runtime may run on: it doesn't answer")
        }
    }
}

async fn end_all(client: &Client, node: String) -> Result<usize, Failure> {
    let all = client.pod_sandboxes([(NODE.to_owned(), node)].into()).await?;
    for sandbox in &all {
        client.stop_pod_sandbox(&sandbox.id).await?;
        client.remove_pod_sandbox(&sandbox.id).await?;
    }
    Ok(all.len())
}
