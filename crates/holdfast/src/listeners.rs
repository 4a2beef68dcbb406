//! Where a host's API listens.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use config::{HostConfig, NetConfig};
use server::Server;

/// The API on the host's own address, and on the virtual one for when this host holds it. On loopback the switch
/// keeps the virtual address and passes its connections on to the host's.
pub struct Listeners {
    _own: server::Listening,
    shared: Option<server::Listening>,
}

impl Listeners {
    /// Listens from now on.
    pub fn open(
        config: &HostConfig,
        server: &Arc<Server>,
        tls: &Arc<rustls::ServerConfig>,
    ) -> anyhow::Result<Self> {
        let refused = |at: SocketAddr| {
            move || format!("can't listen on {at}: is another cluster running on this machine?")
        };
        let own = config.listen(config.ports.api);
        let own = server.listen(own, tls.clone()).with_context(refused(own))?;
        let shared = match config.net {
            NetConfig::Netns { .. } => {
                let shared = config.virtual_api();
                let listener = network::listen_before_held(shared).with_context(refused(shared))?;
                Some(server.listen_on(listener, tls.clone()).with_context(refused(shared))?)
            }
            NetConfig::Loopback { .. } => None,
        };
        Ok(Listeners { _own: own, shared })
    }

    /// Ends the connections to the virtual address, which is about to leave this host.
    pub fn hang_up(&self) {
        if let Some(shared) = &self.shared {
            shared.hang_up();
        }
    }
}
