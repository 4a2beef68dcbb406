//! `pods/NAME/log`: from the agent of the pod's host, as it comes.

use std::sync::Arc;

use api::Status;
use http::Response;
use serde_json::Value;

use super::agent::{Agent, container_of};
use crate::http::Body;
use crate::http::response::{TEXT, bytes};
use crate::http::serve::Asked;
use crate::registry::{Freshness, Named, load};
use crate::server::Server;

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
    let agent = Agent::of(server, node)?;
    let query = asked.query.without("container");
    let path = format!("/containerLogs/{}/{}/{container}?{query}", target.namespace, target.name);
    agent.get(server, &path).await
}
