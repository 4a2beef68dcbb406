//! `pods/[https:]NAME[:PORT]/proxy`: straight to a pod.

use std::net::SocketAddr;

use http::{Request, Response};
use machinery::{Object, Status};
use serde_json::Value;

use super::Proxy;
use crate::backend::{UpgradingClient, connect, rewrite, unreachable_backend};
use crate::http::{Asked, Body};

impl Proxy {
    pub(super) async fn to_pod(
        &self,
        asked: &Asked<'_>,
        request: Request<Body>,
        client: Option<UpgradingClient>,
    ) -> Result<Response<Body>, Status> {
        let (authority, pod) = self.addressed(asked).await?;
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
        if self.relay.backends().is_silent(text("/spec/nodeName")) {
            return Err(unreachable_backend(format!(
                "the host {} of the pod is silent",
                text("/spec/nodeName")
            )));
        }
        let ip = text("/status/podIP");
        if ip.is_empty() {
            return Err(Status::bad_request("address not allowed: the pod has no address yet"));
        }
        let address = self.allowed(ip)?;
        let port = port_of(&pod, authority.port)?;
        let (mut parts, body) = request.into_parts();
        let host = SocketAddr::new(address, port).to_string();
        rewrite(&mut parts, &asked.target.rest, &host).map_err(unreachable_backend)?;
        let request = Request::from_parts(parts, body);
        let stream = connect(ip, port).await.map_err(unreachable_backend)?;
        let node = Some(text("/spec/nodeName").to_owned());
        self.send_on(stream, authority.https.then_some(ip), request, client, node).await
    }
}

/// The port asked for, by number or by name; without one, the pod's first.
fn port_of(pod: &Object, asked: &str) -> Result<u16, Status> {
    if let Ok(number) = asked.parse::<u16>()
        && number > 0
    {
        return Ok(number);
    }
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let mut ports = containers.into_iter().flatten().filter_map(|c| c.get("ports")?.as_array()).flatten();
    let found = match asked {
        "" => ports.next(),
        name => ports.find(|port| port.get("name").and_then(Value::as_str) == Some(name)),
    };
    let number = found.and_then(|port| port.get("containerPort")).and_then(Value::as_u64);
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(number) => Ok(number),
        None if asked.is_empty() => Ok(80),
        None => Err(Status::unavailable(format!("the pod has no port {asked:?}"))),
    }
}
