//! The way to a host's agent: over TLS, in this host's name.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use machinery::{Object, Status};
use objects::load;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Proxy;
use crate::backend::{CONNECT_WITHIN, connect, send};
use crate::http::Body;
use crate::http::response::full;

/// Where agents listen if their node doesn't say.
/// The kubelet's own port.
const AGENT_PORT: u16 = 10250;
/// How long the head of an agent's answer may take: it answers when a log or a command begins,
/// which takes that long only where something is wrong with the host.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// A host's agent.
pub(super) struct Agent<'a> {
    pub(super) node: String,
    pub(super) host: IpAddr,
    pub(super) port: u16,
    tls: &'a Arc<ClientConfig>,
}

impl Proxy {
    /// The agent of a node. 503 if its host is silent.
    pub(super) fn agent(&self, node: &str) -> Result<Agent<'_>, Status> {
        let state = self.registry.store().snapshot();
        let kv = state.get(objects::key("", "nodes", "", node).as_bytes());
        let object = load(kv.ok_or_else(|| Status::not_found("", "nodes", node))?)?;
        if self.relay.backends().is_silent(node) {
            return Err(Status::unavailable(format!("the host {node} is silent")));
        }
        let addresses = object.pointer("/status/addresses").and_then(Value::as_array);
        let internal = addresses
            .into_iter()
            .flatten()
            .find(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"))
            .and_then(|address| address.get("address")?.as_str());
        let host = internal
            .ok_or_else(|| Status::internal(format!("node {node:?} tells no address of its agent")))?;
        let host = self.allowed(host)?;
        let port = object
            .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
            .and_then(Value::as_u64)
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0);
        Ok(Agent { node: node.to_owned(), host, port: port.unwrap_or(AGENT_PORT), tls: &self.agents_tls })
    }
}

impl Agent<'_> {
    /// Host and port as a request names them.
    pub(super) fn authority(&self) -> String {
        match self.host {
            IpAddr::V4(host) => format!("{host}:{}", self.port),
            IpAddr::V6(host) => format!("[{host}]:{}", self.port),
        }
    }

    /// Connects.
    pub(super) async fn connect(&self) -> Result<TlsStream<TcpStream>, Status> {
        let dial = |why: &dyn Display| self.unreachable("", why);
        let tls = TlsConnector::from(self.tls.clone());
        let stream = connect(&self.host.to_string(), self.port).await.map_err(|error| dial(&error))?;
        let name = ServerName::IpAddress(self.host.into());
        let encrypted = timeout(CONNECT_WITHIN, tls.connect(name, stream)).await;
        encrypted.map_err(|_| dial(&"the TLS handshake took too long"))?.map_err(|error| dial(&error))
    }

    /// Asks for a path.
    pub(super) async fn get(&self, path: &str) -> Result<Response<Body>, Status> {
        let stream = self.connect().await?;
        let request = Request::get(path)
            .header(http::header::HOST, self.authority())
            .body(full(""))
            .map_err(|error| self.unreachable(path, &error))?;
        let answer = timeout(HEAD_WITHIN, send(stream, request)).await;
        let answer = answer.map_err(|_| self.unreachable(path, &"the host's agent does not answer"))?;
        answer.map_err(|error| self.unreachable(path, &error))
    }

    /// 500: it gave no answer.
    pub(super) fn unreachable(&self, path: &str, why: &dyn Display) -> Status {
        Status::internal(format!("Get \"https://{}{path}\": {why}", self.authority()))
    }
}

/// The container meant: the one asked for, or the only one.
pub(super) fn container_of(pod: &Object, asked: Option<&str>) -> Result<String, Status> {
    let names = |path: &str| -> Vec<String> {
        let list = pod.pointer(path).and_then(Value::as_array);
        let list = list.into_iter().flatten();
        list.filter_map(|c| c.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let (containers, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let added = names("/spec/ephemeralContainers");
    match (asked, containers.as_slice()) {
        (Some(asked), all) if all.iter().chain(&init).chain(&added).any(|name| name == asked) => {
            Ok(asked.to_owned())
        }
        (Some(asked), _) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {}", pod.name())))
        }
        (None, [only]) => Ok(only.clone()),
        (None, many) => {
            let mut why = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name(),
                many.join(" ")
            );
            if !init.is_empty() {
                why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(why))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_with_one_container_needs_no_name() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            let added = json!([{"name": "dbg"}]);
            let spec = json!({"containers": containers, "ephemeralContainers": added});
            Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
        };
        let code = |result: Result<String, Status>| result.map_err(|status| status.code);
        assert_eq!(code(container_of(&pod(&["a"]), None)), Ok("a".into()));
        assert_eq!(code(container_of(&pod(&["a", "b"]), Some("b"))), Ok("b".into()));
        assert_eq!(code(container_of(&pod(&["a", "b"]), None)), Err(400));
        assert_eq!(code(container_of(&pod(&["a"]), Some("dbg"))), Ok("dbg".into()));
        assert_eq!(code(container_of(&pod(&["a"]), Some("c"))), Err(400));
    }
}
