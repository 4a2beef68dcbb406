//! Asks the servers of aggregated APIs again and again what they serve: one that doesn't answer isn't available.
//!
//! Follows the available condition controller of `kube-aggregator`. Every host asks, because every host answers what
//! they serve; the one that leads writes the conditions.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use access::UserInfo;
use futures::future::join_all;
use http::Request;
use http_body_util::{BodyExt, Limited};
use objects::{TypedRef, Write, Writer};
use serde_json::{Value, json};
use store::{Revision, State};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{Aggregation, Remote};
use crate::http::response::full;

const USER: &str = "system:apiserver";
/// How long an answer may take, as upstream.
const WITHIN: Duration = Duration::from_secs(5);
/// How often a server that answers is asked; one that doesn't is asked sooner.
const EVERY: Duration = Duration::from_secs(30);
/// A server that just started is found within this time, at the price of a request every two seconds while it is gone.
const SOON: Duration = Duration::from_secs(2);
/// The largest answer that is taken.
const LARGEST: usize = 16 << 20;

/// What was last learnt of each APIService, by name.
#[derive(Debug, Default)]
pub(super) struct Probes(Mutex<BTreeMap<String, Probe>>);

#[derive(Debug, Clone)]
struct Probe {
    /// The APIService's revision, and the newest one of what it needs.
    of: (Revision, Revision),
    at: Instant,
    verdict: Availability,
    /// The resources of its `APIResourceList`, of the last time that it answered.
    resources: Option<Value>,
    /// Where its OpenAPI document is, if it has one.
    openapi: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Availability {
    available: bool,
    reason: &'static str,
    message: String,
}

impl Availability {
    fn missing(reason: &'static str, message: String) -> Self {
        Availability { available: false, reason, message }
    }
}

impl Probes {
    /// The resources of an APIService as its server last listed them, and whether that was just now.
    pub(super) fn resources(&self, name: &str) -> (Option<Value>, bool) {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let probe = probes.get(name);
        (probe.and_then(|probe| probe.resources.clone()), probe.is_some_and(|probe| probe.verdict.available))
    }

    /// Where an APIService's OpenAPI document is.
    pub(super) fn openapi(&self, name: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.openapi.clone()
    }

    /// When the one is due again that was asked about `of`.
    fn due(&self, name: &str, of: (Revision, Revision)) -> Option<Instant> {
        let probes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let probe = probes.get(name).filter(|probe| probe.of == of)?;
        Some(probe.at + if probe.verdict.available { EVERY } else { SOON })
    }
}

/// The newest revision of what stands between here and the server: its service, and that one's endpoints.
fn surroundings(state: &State, remote: &Remote) -> Revision {
    let service = objects::key("", "services", &remote.namespace, &remote.service);
    let endpoints = objects::key("", "endpoints", &remote.namespace, &remote.service);
    let newest =
        [service, endpoints].iter().filter_map(|key| Some(state.get(key.as_bytes())?.mod_revision)).max();
    newest.unwrap_or_default()
}

impl Aggregation {
    /// Keeps what is known of aggregated APIs up to date, for as long as it is polled and the server is open.
    pub(crate) async fn keep(&self, mut closing: watch::Receiver<bool>) {
        let mut states = self.registry.store().states();
        loop {
            let state = states.borrow_and_update().clone();
            let wait = self.probe_what_is_due(&state).await;
            let next = async {
                match wait {
                    Some(wait) => tokio::time::sleep(wait).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = closing.wait_for(|closing| *closing) => return,
                () = next => {}
                changed = states.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks the servers that are due; the answer is when the next one is.
    async fn probe_what_is_due(&self, state: &State) -> Option<Duration> {
        let remotes = self.remotes(state);
        let leads = self.registry.store().leadership().borrow().is_me;
        if leads {
            let all = remotes.silent_locals.iter();
            join_all(all.map(|name| self.write_condition(name, local()))).await;
        }
        let now = self.registry.edge().instant();
        let due = |remote: &&Arc<Remote>| {
            let of = (remote.revision, surroundings(state, remote));
            self.probes.due(&remote.name, of).is_none_or(|at| at <= now)
        };
        join_all(remotes.list.iter().filter(due).map(|remote| self.probe(state, remote))).await;
        let mut probes = self.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
        probes.retain(|name, _| remotes.list.iter().any(|remote| remote.name == *name));
        let now = self.registry.edge().instant();
        let next = probes.values().map(|p| p.at + if p.verdict.available { EVERY } else { SOON }).min();
        next.map(|next| next.saturating_duration_since(now).max(Duration::from_millis(100)))
    }

    async fn probe(&self, state: &State, remote: &Arc<Remote>) {
        let of = (remote.revision, surroundings(state, remote));
        let (verdict, resources, openapi) = self.learn(state, remote).await;
        let differs = remote.available != verdict.available || !self.says(state, remote, &verdict);
        if differs && self.registry.store().leadership().borrow().is_me {
            self.write_condition(&remote.name, verdict.clone()).await;
        }
        let mut probes = self.probes.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = probes.remove(&remote.name);
        let resources = resources.or_else(|| known.as_ref()?.resources.clone());
        let openapi = if verdict.available { openapi } else { known.and_then(|known| known.openapi) };
        let probe = Probe { of, at: self.registry.edge().instant(), verdict, resources, openapi };
        probes.insert(remote.name.clone(), probe);
    }

    /// What an APIService's server says now.
    async fn learn(
        &self,
        state: &State,
        remote: &Arc<Remote>,
    ) -> (Availability, Option<Value>, Option<String>) {
        let Remote { namespace, service, port, .. } = &**remote;
        let key = objects::key("", "services", namespace, service);
        let found =
            state.get(key.as_bytes()).and_then(|kv| serde_json::from_slice::<Value>(&kv.value.bytes()).ok());
        let place = format!("service/{service} in {namespace:?}");
        let Some(found) = found else {
            return (Availability::missing("ServiceNotFound", format!("{place} is not present")), None, None);
        };
        let ports = found.pointer("/spec/ports").and_then(Value::as_array);
        let has_port = |known: &Value| known["port"].as_u64() == port.parse().ok();
        if !ports.is_some_and(|ports| ports.iter().any(has_port)) {
            let message = format!("{place} is not listening on port {port}");
            return (Availability::missing("ServicePortError", message), None, None);
        }
        let list = match timeout(WITHIN, self.fetch(remote, &remote.path())).await {
            Ok(Ok(list)) => list,
            Ok(Err(why)) => {
                let message = format!("failing or missing response from {}: {why}", remote.path());
                return (Availability::missing("FailedDiscoveryCheck", message), None, None);
            }
            Err(_) => {
                let message = format!("no response from {} within {WITHIN:?}", remote.path());
                return (Availability::missing("FailedDiscoveryCheck", message), None, None);
            }
        };
        let index = timeout(WITHIN, self.fetch(remote, "/openapi/v3")).await;
        let openapi = index.ok().and_then(Result::ok).and_then(|index| {
            let own = format!("apis/{}/{}", remote.group, remote.version);
            Some(index["paths"][own]["serverRelativeURL"].as_str()?.to_owned())
        });
        let verdict =
            Availability { available: true, reason: "Passed", message: "all checks passed".to_owned() };
        (verdict, list.get("resources").cloned(), openapi)
    }

    /// A JSON document of an aggregated API's server, asked for in the API's own name.
    pub(super) async fn fetch(&self, remote: &Remote, path: &str) -> Result<Value, String> {
        let request = Request::get(path).header("accept", "application/json").body(full(""));
        let who = UserInfo::new("system:kube-aggregator", ["system:masters"]);
        let answer = self.ask(remote, &who, request.map_err(|error| error.to_string())?, None).await;
        let answer = answer.map_err(|status| status.message)?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|e| e.to_string())?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
    }

    /// Whether an APIService's condition says that already.
    fn says(&self, state: &State, remote: &Remote, verdict: &Availability) -> bool {
        let key = objects::key("apiregistration.k8s.io", "apiservices", "", &remote.name);
        let value =
            state.get(key.as_bytes()).and_then(|kv| serde_json::from_slice::<Value>(&kv.value.bytes()).ok());
        let Some(value) = value else { return true };
        let conditions = value.pointer("/status/conditions").and_then(Value::as_array);
        let known = conditions.into_iter().flatten().find(|condition| condition["type"] == "Available");
        known.is_some_and(|known| known["reason"] == verdict.reason)
    }

    async fn write_condition(&self, name: &str, verdict: Availability) {
        let status = if verdict.available { "True" } else { "False" };
        let condition = json!({
            "type": "Available", "status": status, "reason": verdict.reason, "message": verdict.message,
            "lastTransitionTime": self.registry.edge().time(),
        });
        let subject = TypedRef {
            api_version: "apiregistration.k8s.io/v1".into(),
            kind: "APIService".into(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        let patch = json!({"status": {"conditions": [condition]}});
        let written = self.registry.write(USER, Write::Merge { subject, subresource: "status", patch }).await;
        if let Err(status) = written {
            tracing::debug!(name, %status, "the condition of an APIService can't be written now");
        }
    }
}

/// What is served here.
fn local() -> Availability {
    let message = "Local APIServices are always available".to_owned();
    Availability { available: true, reason: "Local", message }
}
