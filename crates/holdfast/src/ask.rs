//! How a host's cluster is, asked of whichever of its hosts answers.

use std::net::SocketAddr;
use std::time::Duration;

use ::check::{CLUSTER_PATH, ClusterSays};
use client::{Client, Kubeconfig};
use config::HostConfig;

/// How long a host may take to say how all are: it asks the others.
pub const ANSWER: Duration = Duration::from_secs(4);

/// What the first host says that answers, by this one's configuration: itself, who has the virtual address, the others. With the client by
/// which it was asked. Otherwise why the last one didn't.
pub async fn cluster_says(config: &HostConfig, first: &Kubeconfig) -> Result<(Client, ClusterSays), String> {
    let own = SocketAddr::new(config.address, config.ports.api);
    let peers = config.peers_at(config.ports.api).into_values().filter(|peer| *peer != own);
    let mut why = String::new();
    for at in [own, config.virtual_api()].into_iter().chain(peers) {
        let client = match Client::new(&first.with_server(format!("https://{at}"))) {
            Ok(client) => client.with_timeout(ANSWER),
            Err(error) => {
                why = error.to_string();
                continue;
            }
        };
        match client.get(CLUSTER_PATH).await.map(serde_json::from_value::<ClusterSays>) {
            Ok(Ok(says)) => return Ok((client, says)),
            Ok(Err(error)) => why = error.to_string(),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}
