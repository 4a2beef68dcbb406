//! `nodes/[https:]NAME[:PORT]/proxy`: to the host's agent, or to another port of the host.

use http::{Request, Response};
use machinery::Status;

use super::{Proxy, ProxyName};
use crate::backend::{UpgradingClient, connect, rewrite, unreachable_backend};
use crate::http::{Asked, Body};

impl Proxy {
    pub(super) async fn to_node(
        &self,
        asked: &Asked<'_>,
        request: Request<Body>,
        client: Option<UpgradingClient>,
    ) -> Result<Response<Body>, Status> {
        // The agent runs commands too: reading must not be enough for that.
        if client.is_some() {
            self.check_may_create(asked)?;
        }
        let authority = ProxyName::parse(&asked.target.name)?;
        let agent = self.agent(authority.name)?;
        let port = match authority.port {
            "" => agent.port,
            number => {
                let wrong = || Status::bad_request(format!("a node's port is a number, not {number:?}"));
                number.parse().map_err(|_| wrong())?
            }
        };
        let own = port == agent.port;
        let host = agent.host.to_string();
        let named = if own { agent.authority() } else { format!("{host}:{port}") };
        let (mut parts, body) = request.into_parts();
        rewrite(&mut parts, &asked.target.rest, &named).map_err(unreachable_backend)?;
        let request = Request::from_parts(parts, body);
        let node = Some(agent.node.clone());
        if own {
            return self.relay.pass_on(agent.connect().await?, request, client, node).await;
        }
        let stream = connect(&host, port).await.map_err(unreachable_backend)?;
        self.send_on(stream, authority.https.then_some(host.as_str()), request, client, node).await
    }
}
