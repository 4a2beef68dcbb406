//! Connections to the ports of a pod.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use nix::sched::{CloneFlags, setns};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tracing::info_span;

use crate::pods::PodHost;

/// How long a process may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked whether the pod is still there.
const LOOK: Duration = Duration::from_millis(500);
/// Where a pod with a network of its own is asked: there, as upstream.
const INSIDE: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

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
        let network = self.host.runtime.network(&self.uid).await;
        let addresses = if network.is_some() { &INSIDE[..] } else { &self.addresses };
        let mut why = String::new();
        for address in addresses {
            let target = SocketAddr::new(*address, port);
            let connect = async {
                match &network {
                    Some(network) => socket_in(network, target).await?.connect(target).await,
                    None => TcpStream::connect(target).await,
                }
            };
            match tokio::time::timeout(CONNECT_WITHIN, connect).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Ok(Err(error)) => why = format!("dial tcp {target}: {error}"),
                Err(_) => why = format!("dial tcp {target}: no answer"),
            }
        }
        Err(format!("error forwarding port {port} to pod {}/{}: {why}", self.namespace, self.name))
    }

    /// Waits until the pod is not there any more.
    pub(super) async fn gone(&self) {
        loop {
            let pod = self.host.pod_here(&self.namespace, &self.name);
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

/// A socket of a pod's network: it stays there, whichever thread uses it. Made on a thread that goes there and ends, since one of the
/// runtime's would have to come back.
async fn socket_in(network: &OwnedFd, target: SocketAddr) -> io::Result<TcpSocket> {
    let network = network.try_clone()?;
    let (tell, told) = oneshot::channel();
    tasks::thread("pod-network", info_span!("enter a pod's network"), move || {
        let entered = setns(network, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        let made = entered.and_then(|()| match target {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        });
        // Who asked may be gone.
        let _ = tell.send(made);
    })?;
    told.await.map_err(|_| io::Error::other("the thread for the socket ended early"))?
}
