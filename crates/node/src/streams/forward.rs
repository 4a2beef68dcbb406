//! Connections to the ports of a pod.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use objects::Reader;
use tokio::net::TcpStream;

use crate::pods::PodHost;

/// How long a process may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the pod is still there.
const LOOK: Duration = Duration::from_millis(500);

/// The ports of one pod.
pub(super) struct Ports {
    host: Arc<PodHost>,
    namespace: String,
    name: String,
    uid: String,
    addresses: Vec<IpAddr>,
}

impl Ports {
    /// The ports of a pod that has an address.
    pub(super) fn of(host: &Arc<PodHost>, pod: &Pod) -> Option<Self> {
        let of = |text: &Option<String>| text.clone().unwrap_or_default();
        let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref())?.parse().ok()?;
        let shares = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
        // A pod that shares the host's network may also listen on loopback alone.
        let addresses = if shares { vec![ip, Ipv4Addr::LOCALHOST.into()] } else { vec![ip] };
        let (namespace, name, uid) =
            (of(&pod.metadata.namespace), of(&pod.metadata.name), of(&pod.metadata.uid));
        Some(Ports { host: host.clone(), namespace, name, uid, addresses })
    }

    /// Connects to a port; an error is the message for the caller.
    pub(super) async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let mut why = String::new();
        for address in &self.addresses {
            match tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((*address, port))).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => why = format!("dial tcp {address}:{port}: {error}"),
                Err(_) => why = format!("dial tcp {address}:{port}: no answer"),
            }
        }
        Err(format!("error forwarding port {port} to pod {}/{}: {why}", self.namespace, self.name))
    }

    /// Waits until the pod is not there any more.
    pub(super) async fn gone(&self) {
        loop {
            let pod = Reader::<Pod>::get(&self.host.store.snapshot(), &self.namespace, &self.name);
            let here = pod.is_some_and(|pod| {
                let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
                pod.metadata.uid.as_deref() == Some(&self.uid)
                    && !matches!(phase, Some("Succeeded" | "Failed"))
            });
            if !here {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
