//! Asks a cluster how it is.

use std::collections::BTreeMap;
use std::time::Duration;

use client::{Client, Kubeconfig};
use jiff::Timestamp;
use objects::{ADDRESS_NAMESPACE, AddressLease};

use super::facts::Facts;
use super::told::{CLUSTER_PATH, ClusterSays};
use crate::facts::Node;
use crate::gather::parse_nodes;

/// How long a server may take for one answer. It asks its hosts within half of that.
const PATIENCE: Duration = Duration::from_secs(4);

/// Why a cluster can't be asked how it is.
#[derive(Debug, thiserror::Error)]
pub enum NoStatus {
    /// Nobody answers.
    #[error("no host of the cluster answers: {}; start one, or name another kubeconfig with --kubeconfig FILE", told(.0))]
    Nobody(Vec<(String, String)>),
    /// The user has no right to ask.
    #[error("{server} doesn't tell whom the kubeconfig names: {why}; ask as an administrator")]
    Refused {
        /// The server.
        server: String,
        /// What it said.
        why: String,
    },
    /// It is no host of this program, or one of an older version.
    #[error(
        "{0} doesn't know {CLUSTER_PATH}: it is another Kubernetes, or an older version of holdfast; `kubectl get nodes` shows its hosts"
    )]
    Unknown(String),
    /// What it answered makes no sense.
    #[error(
        "{server} answered what this version of holdfast doesn't understand: {why}; take the same version on both sides"
    )]
    Senseless {
        /// The server.
        server: String,
        /// What is wrong with it.
        why: String,
    },
}

fn told(tried: &[(String, String)]) -> String {
    let lines: Vec<&str> = tried.iter().map(|(_, why)| why.as_str()).collect();
    lines.join("; ")
}

/// Asks the first server that answers.
#[allow(clippy::disallowed_methods)] // When certificates end is a question about now.
pub(super) async fn gather(servers: &[Kubeconfig]) -> Result<Facts, NoStatus> {
    let mut unreached = Vec::new();
    for asked in servers {
        let server = asked.server.clone();
        let answered = match Client::new(asked).map(|client| client.with_timeout(PATIENCE)) {
            Ok(client) => client.get(CLUSTER_PATH).await.map(|answer| (client, answer)),
            Err(error) => Err(error),
        };
        let (client, answer) = match answered {
            Ok(answered) => answered,
            Err(error) => match error.code() {
                Some(401 | 403) => return Err(NoStatus::Refused { server, why: error.to_string() }),
                Some(404) => return Err(NoStatus::Unknown(server)),
                _ => {
                    unreached.push((server, error.to_string()));
                    continue;
                }
            },
        };
        let cluster: ClusterSays = serde_json::from_value(answer)
            .map_err(|error| NoStatus::Senseless { server: server.clone(), why: error.to_string() })?;
        let (nodes, addresses) = futures::join!(nodes(&client), addresses(&client));
        let own = asked.client_certificate.as_deref().and_then(|pem| std::str::from_utf8(pem).ok());
        let own_certificate = own.and_then(pki::valid_until).and_then(|until| until.try_into().ok());
        return Ok(Facts {
            now: Timestamp::now(),
            server,
            unreached,
            cluster,
            nodes,
            addresses,
            own_certificate,
        });
    }
    Err(NoStatus::Nobody(unreached))
}

/// The Nodes as that host knows them: also where no majority is there that could tell the newest.
async fn nodes(client: &Client) -> Result<BTreeMap<String, Node>, String> {
    let list = client.get("/api/v1/nodes?resourceVersion=0").await.map_err(|error| error.to_string())?;
    let nodes = parse_nodes(list).map_err(|error| error.to_string())?;
    Ok(nodes.into_iter().map(|node| (node.name.clone(), node)).collect())
}

async fn addresses(client: &Client) -> Result<Vec<AddressLease>, String> {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/{ADDRESS_NAMESPACE}/leases?resourceVersion=0");
    let list = client.get(&path).await.map_err(|error| error.to_string())?;
    let mut addresses: Vec<AddressLease> =
        list["items"].as_array().into_iter().flatten().filter_map(AddressLease::of_lease).collect();
    addresses.sort_by_key(|lease| lease.address);
    Ok(addresses)
}
