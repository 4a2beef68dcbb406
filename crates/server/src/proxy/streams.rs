//! `pods/NAME/exec`, `attach` and `portforward`: the client and the agent of the pod's host speak with each other; what
//! they say goes through here unread.

use access::{Attributes, Wanted};
use form_urlencoded::Serializer;
use http::header::{HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION};
use http::{HeaderName, Request, Response, StatusCode};
use machinery::Status;
use objects::{Named, load};
use serde_json::Value;
use tokio::time::timeout;

use super::Proxy;
use super::agent::{HEAD_WITHIN, container_of};
use crate::backend::{UpgradingClient, reason};
use crate::http::query::Query;
use crate::http::response::full;
use crate::http::{Asked, Body};
use crate::registry::Freshness;

/// What of a client's headers says how the two will speak.
const PASSED: [HeaderName; 4] = [
    SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION,
    HeaderName::from_static("x-stream-protocol-version"),
];

impl Proxy {
    /// Answers `exec`, `attach` and `portforward`: leads the client to the agent.
    pub(crate) async fn stream(
        &self,
        asked: &Asked<'_>,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, Status> {
        let target = asked.target;
        let Some(client) = UpgradingClient::of(&mut request) else {
            return Err(Status::bad_request("Upgrade request required"));
        };
        self.check_may_create(asked)?;
        let query = self.admit_stream(asked).await?;
        let named = Named { resource: target.resource, namespace: &target.namespace, name: &target.name };
        let pod = load(&*self.registry.get(&named, Freshness::Newest).await?)?;
        let (verb, container) = match target.subresource.as_str() {
            "portforward" => ("portForward", String::new()),
            other => (other, format!("/{}", container_of(&pod, query.get("container"))?)),
        };
        let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if node.is_empty() {
            return Err(Status::bad_request(format!("pod {} does not have a host assigned", pod.name())));
        }
        let agent = self.agent(node)?;
        let query = agents_query(&query);
        let path = format!("/{verb}/{}/{}{container}", target.namespace, target.name);
        let unreachable = |why: &dyn std::fmt::Display| agent.unreachable(&path, why);
        let mut to_agent = Request::builder().method(request.method()).uri(format!("{path}?{query}"));
        if let Some(headers) = to_agent.headers_mut() {
            for name in &PASSED {
                for value in request.headers().get_all(name) {
                    headers.append(name, value.clone());
                }
            }
            client.ask(headers);
        }
        let to_agent =
            to_agent.header(HOST, agent.authority()).body(full("")).map_err(|e| unreachable(&e))?;
        let stream = agent.connect().await?;
        let sent = self.relay.send_upgrade(stream, to_agent, client, Some(agent.node.clone()));
        let answer = timeout(HEAD_WITHIN, sent).await;
        let answer = answer
            .map_err(|_| unreachable(&"the host's agent does not answer"))?
            .map_err(|error| unreachable(&error))?;
        let code = answer.status();
        if code == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let why = reason(answer).await;
        Err(match code {
            StatusCode::BAD_REQUEST => Status::bad_request(why),
            StatusCode::FORBIDDEN => Status::new(403, "Forbidden", why),
            StatusCode::NOT_FOUND => Status::new(404, "NotFound", why),
            _ => Status::internal(why),
        })
    }

    /// A client that changes something by a GET must be allowed to create: a WebSocket begins with one (KEP-4006,
    /// upstream's `AuthorizePodWebsocketUpgradeCreatePermission`).
    pub(super) fn check_may_create(&self, asked: &Asked<'_>) -> Result<(), Status> {
        let target = asked.target;
        let wanted = Attributes {
            verb: "create",
            group: target.resource.group,
            resource: target.resource.plural,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: &target.name,
            fields: "",
        };
        self.registry.check_allowed(asked.who, &Wanted::Object(wanted))
    }
}

/// The query in the agent's words.
fn agents_query(query: &Query) -> String {
    let mut theirs = Serializer::new(String::new());
    for (ours, name) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if query.flag(ours) {
            theirs.append_pair(name, "1");
        }
    }
    for (ours, name) in [("command", "command"), ("ports", "port")] {
        for value in query.all(ours) {
            theirs.append_pair(name, value);
        }
    }
    theirs.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_told_in_the_agents_words() {
        let told = |text| agents_query(&Query::parse(Some(text)));
        assert_eq!(
            told("stdin=true&stdout=1&stderr=false&tty=true&command=sh&command=-c&command=a%20b&container=c"),
            "input=1&output=1&tty=1&command=sh&command=-c&command=a+b"
        );
        assert_eq!(told("ports=80&ports=81"), "port=80&port=81");
    }
}
