//! `pods/NAME/log`: from the agent of the pod's host, as it comes.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Object, Status};
use http::{Request, Response};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::connect::{CONNECT_WITHIN, connect, send};
use crate::http::Body;
use crate::http::response::{TEXT, bytes, full};
use crate::http::serve::Asked;
use crate::registry::{Freshness, Named, load};
use crate::server::Server;

/// Where agents listen if their node doesn't say.
const AGENT_PORT: u16 = 10250;
/// How long the head of an agent's answer may take.
const HEAD_WITHIN: Duration = Duration::from_secs(10);

/// Answers with the log of one container.
pub(crate) async fn logs(server: &Arc<Server>, asked: &Asked<'_>) -> Result<Response<Body>, Status> {
    let target = asked.target;
    let named = Named { resource: target.resource, namespace: &target.namespace, name: &target.name };
    let pod = load(&*server.registry().get(&named, Freshness::Newest).await?)?;
    let container = container_of(&pod, asked.query.get("container"))?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        // As upstream: a pod that is nowhere yet has said nothing.
        return Ok(bytes(200, TEXT, ""));
    }
    if server.backends().is_silent(node) {
        return Err(Status::unavailable(format!("the host {node} of pod {} is silent", pod.name())));
    }
    let (host, port) = agent_of(server, node)?;
    let query = asked.query.without("container");
    let path = format!("/containerLogs/{}/{}/{container}?{query}", target.namespace, target.name);
    let unreachable = |error: &dyn std::fmt::Display| {
        Status::internal(format!("Get \"https://{host}:{port}{path}\": {error}"))
    };
    let name = ServerName::IpAddress(host.into());
    let tls = TlsConnector::from(server.kubelet_client_tls().clone());
    let stream = connect(&host.to_string(), port).await.map_err(|error| unreachable(&error))?;
    let stream = timeout(CONNECT_WITHIN, tls.connect(name, stream))
        .await
        .map_err(|_| unreachable(&"the TLS handshake took too long"))?
        .map_err(|error| unreachable(&error))?;
    let request = Request::get(&path)
        .header(http::header::HOST, format!("{host}:{port}"))
        .body(full(""))
        .map_err(|error| unreachable(&error))?;
    let answer = timeout(HEAD_WITHIN, send(stream, request)).await;
    let answer = answer.map_err(|_| unreachable(&"the host's agent does not answer"))?;
    answer.map_err(|error| unreachable(&error))
}

/// The container meant: the one asked for, or the only one.
fn container_of(pod: &Object, asked: Option<&str>) -> Result<String, Status> {
    let names = |path: &str| -> Vec<String> {
        let list = pod.pointer(path).and_then(Value::as_array);
        let list = list.into_iter().flatten();
        list.filter_map(|c| c.get("name")?.as_str().map(str::to_owned)).collect()
    };
    let (containers, init) = (names("/spec/containers"), names("/spec/initContainers"));
    match (asked, containers.as_slice()) {
        (Some(asked), all) if all.iter().chain(&init).any(|name| name == asked) => Ok(asked.to_owned()),
        (Some(asked), _) => {
            Err(Status::bad_request(format!("container {asked} is not valid for pod {}", pod.name())))
        }
        (None, [only]) => Ok(only.clone()),
        (None, many) => Err(Status::bad_request(format!(
            "a container name must be specified for pod {}, choose one of: [{}]",
            pod.name(),
            many.join(" ")
        ))),
    }
}

/// The address of a node's agent.
fn agent_of(server: &Arc<Server>, node: &str) -> Result<(IpAddr, u16), Status> {
    let state = server.registry().store().snapshot();
    let kv = state.get(objects::key("", "nodes", "", node).as_bytes());
    let node_object = load(kv.ok_or_else(|| Status::not_found("", "nodes", node))?)?;
    let addresses = node_object.pointer("/status/addresses").and_then(Value::as_array);
    let internal = addresses
        .into_iter()
        .flatten()
        .find(|address| address.get("type").and_then(Value::as_str) == Some("InternalIP"))
        .and_then(|address| address.get("address")?.as_str()?.parse().ok());
    let address =
        internal.ok_or_else(|| Status::internal(format!("node {node:?} tells no address of its agent")))?;
    let port = node_object
        .pointer("/status/daemonEndpoints/kubeletEndpoint/Port")
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok())
        .filter(|port| *port > 0);
    Ok((address, port.unwrap_or(AGENT_PORT)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_with_one_container_needs_no_name() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            Object::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": containers}}))
                .unwrap()
        };
        let code = |result: Result<String, Status>| result.map_err(|status| status.code);
        assert_eq!(code(container_of(&pod(&["a"]), None)), Ok("a".into()));
        assert_eq!(code(container_of(&pod(&["a", "b"]), Some("b"))), Ok("b".into()));
        assert_eq!(code(container_of(&pod(&["a", "b"]), None)), Err(400));
        assert_eq!(code(container_of(&pod(&["a"]), Some("c"))), Err(400));
    }
}
