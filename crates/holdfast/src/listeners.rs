//! Where a host's API listens.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use config::{HostConfig, NetConfig};
use network::Withheld;
use server::Server;

/// How long a host that is about to give the virtual address up waits for the requests there: as long as it isn't missed (heartbeats call
/// it silent after 250 ms).
const ANSWERED_WITHIN: Duration = Duration::from_millis(200);

/// The API on the host's own address, and on the virtual one for when this host holds it. On loopback the switch
/// keeps the virtual address and passes its connections on to the host's.
pub struct Listeners {
    _own: server::Listening,
    shared: Option<Shared>,
}

/// The API on the virtual address.
struct Shared {
    listening: server::Listening,
    /// The same socket.
    listener: TcpListener,
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
                let same = listener.try_clone().with_context(refused(shared))?;
                let listening = server.listen_on(listener, tls.clone()).with_context(refused(shared))?;
                Some(Shared { listening, listener: same })
            }
            NetConfig::Loopback { .. } => None,
        };
        Ok(Listeners { _own: own, shared })
    }

    /// Ends the connections to the virtual address, which is about to leave this host.
    pub fn hang_up(&self) {
        if let Some(shared) = &self.shared {
            shared.listening.hang_up();
        }
    }

    /// Answers what has been asked at the virtual address, which this host is about to give up of its own accord. Who calls from now on waits,
    /// until they are [passed on](Withheld::pass_on) to the host that has it next.
    pub async fn withhold(&self) -> Option<Withheld> {
        let shared = self.shared.as_ref()?;
        let withheld = network::withhold(&shared.listener);
        let _ = tokio::time::timeout(ANSWERED_WITHIN, shared.listening.calm()).await;
        withheld.unwrap_or_else(|error| {
            tracing::warn!(%error, "who calls the API now may be broken off as its address goes");
            None
        })
    }
}
