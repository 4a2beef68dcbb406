//! The ways to pods and services, as the API and the agent ask for them.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use network::{Network, Targets};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// The network as server and agent see it. They are made before it is: the API must listen when the network
/// starts, since the leader is reachable from then on.
pub struct Reach {
    network: OnceLock<Arc<Network>>,
    /// What the API accepts as an endpoint doesn't wait for the network.
    targets: watch::Receiver<Targets>,
}

impl Reach {
    /// Of a network that is still to come.
    pub fn new(targets: watch::Receiver<Targets>) -> Self {
        Reach { network: OnceLock::new(), targets }
    }

    /// The network has come.
    pub fn set(&self, network: Arc<Network>) -> anyhow::Result<()> {
        self.network.set(network).map_err(|_| anyhow::anyhow!("the network was started twice"))
    }

    fn network(&self) -> io::Result<&Network> {
        let starting = || io::Error::new(io::ErrorKind::NotConnected, "the host's network is still starting");
        self.network.get().map(Arc::as_ref).ok_or_else(starting)
    }
}

impl server::Backends for Reach {
    fn connect<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
    ) -> BoxFuture<'a, io::Result<TcpStream>> {
        Box::pin(async move { self.network()?.connect(namespace, service, port).await })
    }

    fn is_silent(&self, node: &str) -> bool {
        self.network.get().is_some_and(|network| network.is_silent(node))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.targets.borrow().allows(address)
    }
}

impl node::PodAddresses for Reach {
    fn own_networks(&self) -> Result<(), String> {
        self.network().map_err(|why| why.to_string())?.pod_networks()
    }

    fn check_host_ip(&self, address: IpAddr) -> Result<(), String> {
        let network = self.network().map_err(|why| why.to_string())?;
        network.check_host_ip(address).map_err(|why| why.to_string())
    }

    fn connect(
        &self,
        address: IpAddr,
        namespace: OwnedFd,
        ports: Vec<node::HostPort>,
    ) -> BoxFuture<'_, io::Result<()>> {
        let port = |port: node::HostPort| network::HostPort {
            protocol: if port.is_udp { network::Protocol::Udp } else { network::Protocol::Tcp },
            address: port.address,
            number: port.number,
            to: port.to,
        };
        let ports = ports.into_iter().map(port).collect();
        Box::pin(async move {
            self.network()?.connect_pod(address, namespace, ports).await.map_err(io::Error::other)
        })
    }

    fn add(&self, address: IpAddr) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.network()?.add_pod_address(address).await.map_err(io::Error::other) })
    }

    fn remove(&self, address: IpAddr) -> BoxFuture<'_, io::Result<()>> {
        Box::pin(async move { self.network()?.remove_pod_address(address).await.map_err(io::Error::other) })
    }
}
