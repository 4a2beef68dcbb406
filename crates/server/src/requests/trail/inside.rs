//! What the parts of this process change: no request comes by the network for it, and it is recorded as if one did.

use std::sync::Arc;

use access::{AUTHENTICATED, NODE_PREFIX, NODES, UserInfo};
use audit::{About, Asked, Auditor, Decision, Event, Level, ObjectReference, Stage, without_managed_fields};
use futures::future::BoxFuture;
use http::StatusCode;
use machinery::{Object, Resource, Status};
use objects::{TokenRequest, Write, Writer};
use serde_json::Value;

use super::{DECISION, REASON, failure, micro_time, outcome};
use crate::clock::Edge;
use crate::registry::Registry;

/// What they call themselves.
const AGENT: &str = concat!("holdfast/", env!("CARGO_PKG_VERSION"), " (in process)");

/// Writes, and tells of it.
pub(crate) struct AuditedWriter {
    registry: Arc<Registry>,
    auditor: Arc<Auditor>,
}

/// What is to be changed.
struct Target {
    verb: &'static str,
    resource: Resource,
    subresource: &'static str,
    namespace: String,
    name: String,
}

/// A change that is recorded when this is dropped: it is done, or its caller doesn't wait any more.
struct Begun {
    auditor: Arc<Auditor>,
    edge: Arc<dyn Edge>,
    decision: Decision,
    event: Event,
    /// The code of an answer that it succeeded.
    success: StatusCode,
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.decision.wants(Stage::ResponseComplete) {
            return;
        }
        self.event.stage = Stage::ResponseComplete;
        self.event.stage_timestamp = micro_time(&*self.edge);
        if self.event.response_status.is_none() {
            let why = "who asked for it went away before it was answered; it may have been done";
            self.event.response_status = Some(failure("ClientClosedRequest", why, 499));
        }
        self.auditor.tell(&self.event);
    }
}

impl Target {
    fn of(registry: &Registry, write: &Write) -> Option<Self> {
        let object = |verb, object: &Object, subresource| {
            let resource = registry.resource_of(object.api_version(), object.kind()).ok()?;
            let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
            Some(Target { verb, resource, subresource, namespace, name })
        };
        let named = |verb, (version, kind): (&str, &str), (namespace, name): (&str, &str), subresource| {
            let resource = registry.resource_of(version, kind).ok()?;
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Some(Target { verb, resource, subresource, namespace, name })
        };
        match write {
            Write::Create(made) => object("create", made, ""),
            Write::Update(new) => object("update", new, ""),
            Write::UpdateStatus(new) => object("update", new, "status"),
            Write::Merge { subject, subresource, .. } => {
                let kind = (subject.api_version.as_str(), subject.kind.as_str());
                named("patch", kind, (subject.namespace.as_str(), subject.name.as_str()), *subresource)
            }
            Write::Delete { subject, .. } => {
                let kind = (subject.api_version.as_str(), subject.kind.as_str());
                named("delete", kind, (subject.namespace.as_str(), subject.name.as_str()), "")
            }
            Write::Evict { pod, .. } => {
                named("create", ("v1", "Pod"), (&*pod.namespace, &*pod.name), "eviction")
            }
            Write::Bind { pod, .. } => {
                named("create", ("v1", "Pod"), (&*pod.namespace, &*pod.name), "binding")
            }
        }
    }

    /// The path that a request for it would have.
    fn path(&self) -> String {
        let Resource { group, version, plural, .. } = self.resource;
        let mut path = match group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        };
        if !self.namespace.is_empty() {
            path += &format!("/namespaces/{}", self.namespace);
        }
        path += &format!("/{plural}");
        if self.verb != "create" || !self.subresource.is_empty() {
            path += &format!("/{}", self.name);
        }
        if !self.subresource.is_empty() {
            path += &format!("/{}", self.subresource);
        }
        path
    }
}

impl AuditedWriter {
    pub(crate) fn new(registry: Arc<Registry>, auditor: Arc<Auditor>) -> Self {
        AuditedWriter { registry, auditor }
    }

    /// Begins to tell of a change, if the policy wants to know of it.
    fn begin(&self, user: &str, target: &Target) -> Option<Begun> {
        let own = if user.starts_with(NODE_PREFIX) { &[NODES, AUTHENTICATED][..] } else { &[AUTHENTICATED] };
        let who = UserInfo::new(user, own.iter().copied());
        let Resource { group, version, plural, .. } = target.resource;
        let asked = Asked {
            user: Some(user),
            groups: &who.groups,
            verb: target.verb,
            about: About::Objects {
                group,
                resource: plural,
                subresource: target.subresource,
                namespace: &target.namespace,
                name: &target.name,
            },
        };
        let decision = self.auditor.decide(&asked);
        if decision.level == Level::None {
            return None;
        }
        let edge = &**self.registry.edge();
        let mut event = Event::received(decision.level, edge.uid(), micro_time(edge));
        event.request_uri = target.path();
        event.verb = target.verb.to_owned();
        event.user = who.user_info();
        event.user_agent = AGENT.to_owned();
        event.object_ref = Some(ObjectReference {
            resource: plural.to_owned(),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            api_group: group.to_owned(),
            api_version: version.to_owned(),
            subresource: target.subresource.to_owned(),
            ..ObjectReference::default()
        });
        if decision.wants(Stage::RequestReceived) {
            self.auditor.tell(&event);
        }
        let success = if target.verb == "create" { StatusCode::CREATED } else { StatusCode::OK };
        let (auditor, edge) = (self.auditor.clone(), self.registry.edge().clone());
        Some(Begun { auditor, edge, decision, event, success })
    }
}

impl Begun {
    /// Tells how it ended.
    fn end(mut self, refused: Option<&Status>, answered: Option<&Object>) {
        let event = &mut self.event;
        event.response_status = Some(outcome(self.success, refused));
        let is_forbidden = refused.is_some_and(|status| status.code == 403);
        let judged = if is_forbidden { "forbid" } else { "allow" };
        event.annotations.insert(DECISION.to_owned(), judged.to_owned());
        event.annotations.insert(REASON.to_owned(), String::new());
        if let (Some(reference), Some(object)) = (&mut event.object_ref, answered)
            && reference.name.is_empty()
        {
            reference.name = object.name().to_owned();
        }
        if self.decision.level >= Level::RequestResponse {
            event.response_object = answered.map(|object| told(&self.decision, object.clone().into_value()));
        }
    }
}

fn told(decision: &Decision, mut value: Value) -> Value {
    if decision.omit_managed_fields {
        without_managed_fields(&mut value);
    }
    value
}

/// What is sent with a change, as its request would have it.
fn sent(write: &Write) -> Option<Value> {
    match write {
        Write::Create(object) | Write::Update(object) | Write::UpdateStatus(object) => {
            Some(object.clone().into_value())
        }
        Write::Merge { patch, .. } => Some(patch.clone()),
        Write::Delete { .. } | Write::Evict { .. } | Write::Bind { .. } => None,
    }
}

impl Writer for AuditedWriter {
    fn write<'a>(&'a self, user: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        Box::pin(async move {
            let target = Target::of(&self.registry, &write);
            let Some(mut begun) = target.and_then(|target| self.begin(user, &target)) else {
                return self.registry.write(user, write).await;
            };
            if begun.decision.level >= Level::Request
                && let Some(object) = sent(&write)
            {
                begun.event.take_request(told(&begun.decision, object));
            }
            let done = self.registry.write(user, write).await;
            begun.end(done.as_ref().err(), done.as_ref().ok());
            done
        })
    }

    fn token<'a>(&'a self, user: &'a str, request: TokenRequest) -> BoxFuture<'a, Result<String, Status>> {
        Box::pin(async move {
            let target = self.registry.resource_of("v1", "ServiceAccount").ok().map(|resource| Target {
                verb: "create",
                resource,
                subresource: "token",
                namespace: request.namespace.clone(),
                name: request.account.clone(),
            });
            let begun = target.and_then(|target| self.begin(user, &target));
            let done = self.registry.token(user, request).await;
            if let Some(begun) = begun {
                // Never the token, whatever the level: it isn't answered to anybody outside.
                begun.end(done.as_ref().err(), None);
            }
            done
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use audit::{Policy, Sink};
    use bytes::Bytes;

    use super::*;
    use crate::clock::SystemEdge;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<Value>>);

    impl Sink for Recorder {
        fn take(&self, event: &Bytes) {
            self.0.lock().unwrap().push(serde_json::from_slice(event).unwrap());
        }
    }

    #[test]
    fn a_change_that_nobody_waits_for_any_more_is_told_once() {
        let recorder = Arc::new(Recorder::default());
        let text = b"{apiVersion: audit.k8s.io/v1, kind: Policy, rules: [{level: Metadata}]}";
        let sink: Arc<dyn Sink> = recorder.clone();
        let auditor = Arc::new(Auditor::new(Policy::parse(text).unwrap(), vec![sink]));
        let begun = || {
            let asked = Asked { user: None, groups: &[], verb: "create", about: About::Path("/") };
            let decision = auditor.decide(&asked);
            let event = Event::received(decision.level, "id".into(), micro_time(&SystemEdge));
            let (auditor, edge) = (auditor.clone(), Arc::new(SystemEdge));
            Begun { auditor, edge, decision, event, success: StatusCode::CREATED }
        };
        drop(begun());
        begun().end(None, None);
        let told = recorder.0.lock().unwrap();
        let codes: Vec<_> = told.iter().map(|event| event["responseStatus"]["code"].as_u64()).collect();
        assert_eq!(codes, [Some(499), Some(201)]);
        assert!(told.iter().all(|event| event["stage"] == "ResponseComplete"));
    }
}
