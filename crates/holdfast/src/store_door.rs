//! The store's door for etcdctl: etcd's API on the host's own address, for administrators alone.

use std::sync::Arc;

use config::HostConfig;
use etcd::{ServedCluster, Tls};
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use store::Embedded;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tracing::info_span;

/// The only group let in: its members read every Secret and write past all rules.
const GROUP: &str = "system:masters";

/// Opens it; it is closed by aborting the task. A host does without where something else has the port.
pub fn open(config: &HostConfig, tls: Arc<ServerConfig>, store: Arc<Embedded>) -> JoinHandle<()> {
    let here = config.listen(config.ports.etcd);
    let identity = ServedCluster { cluster: config.cluster_id.clone(), client_port: config.ports.etcd };
    tasks::spawn(info_span!("etcd API"), async move {
        match TcpListener::bind(here).await {
            Ok(listener) => {
                let tls = Tls { config: tls, admits };
                etcd::serve(listener, Some(tls), store.clone(), store, identity).await;
            }
            Err(error) => tracing::warn!(%error, "etcdctl finds nobody here: can't listen on {here}"),
        }
    })
}

fn admits(certificate: &CertificateDer<'_>) -> bool {
    let who = server::UserInfo::of_certificate(certificate);
    who.is_some_and(|who| who.groups.iter().any(|group| group == GROUP))
}
