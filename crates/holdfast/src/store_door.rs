//! The store's door for etcdctl: etcd's API on the host's own address, for administrators alone.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use etcd::{Identity, Member, Tls};
use local::{Addresses, HostConfig};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use store::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::host::STORE;

/// Whoever gets in reads every Secret and writes past all rules.
const GROUP: &str = "system:masters";

/// Opens it; it is closed by aborting the task. A host does without where something else has the port.
pub fn open(config: &HostConfig, tls: Arc<ServerConfig>, store: Arc<dyn Store>) -> JoinHandle<()> {
    let here = SocketAddr::new(config.address, Addresses::ETCD_PORT);
    let identity = identity(config);
    tokio::spawn(async move {
        match TcpListener::bind(here).await {
            Ok(listener) => etcd::serve(listener, Some(Tls { config: tls, admits }), store, identity).await,
            Err(error) => tracing::warn!(%error, "etcdctl finds nobody here: can't listen on {here}"),
        }
    })
}

fn admits(certificate: &CertificateDer<'_>) -> bool {
    let who = server::Identity::of_certificate(certificate);
    who.is_some_and(|who| who.groups.iter().any(|group| group == GROUP))
}

fn identity(config: &HostConfig) -> Identity {
    let url = |address: &IpAddr, port| format!("https://{}", SocketAddr::new(*address, port));
    let member = |(name, address): (&String, &IpAddr)| Member {
        name: name.clone(),
        peer_url: url(address, STORE),
        client_url: url(address, Addresses::ETCD_PORT),
    };
    Identity {
        cluster: config.cluster_id.clone(),
        me: config.name.clone(),
        members: config.peers.iter().map(member).collect(),
    }
}
