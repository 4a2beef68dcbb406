//! What the audit records of a request, from when it comes until its answer is over.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/filters` (`audit.go`, `audit_init.go`, `authn_audit.go`).

mod attributes;
mod inside;
mod overheard;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use access::{Reason, UserInfo};
use audit::{Auditor, Decision, Event, Level, Stage, without_managed_fields};
use http::header::{ACCEPT_ENCODING, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use machinery::Status;
use serde_json::{Value, json};

use self::attributes::Attributes;
pub(super) use self::inside::AuditedWriter;
use self::overheard::{Heard, Overheard, Side, Untold};
use super::Requests;
use crate::clock::Edge;
use crate::http::negotiate::content_type;
use crate::http::response::{Created, status_value};
use crate::http::{Body, Connection};

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// The longest id that a client may give its request, in bytes.
const LONGEST_ID: usize = 64;
/// How much is recorded of what a client calls itself, in bytes: upstream's `maxUserAgentLength`.
const LONGEST_AGENT: usize = 1024;
/// How many of the addresses that a client names are recorded.
const MOST_ADDRESSES: usize = 16;
const DECISION: &str = "authorization.k8s.io/decision";
const REASON: &str = "authorization.k8s.io/reason";
/// As upstream's backend for truncated events has it.
const TRUNCATED: &str = "audit.k8s.io/truncated";

/// The id that all events of a request have, and its answer: the client's own, where it gave a fit one.
pub(super) fn id_of(headers: &HeaderMap, edge: &dyn Edge) -> HeaderValue {
    let fits = |id: &&HeaderValue| {
        (1..=LONGEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(AUDIT_ID).filter(fits).cloned();
    // A uid consists of what a header may.
    given.or_else(|| edge.uid().try_into().ok()).unwrap_or(HeaderValue::from_static(""))
}

/// Writes the id into an answer.
pub(super) fn show(id: HeaderValue, response: &mut Response<Body>) {
    response.headers_mut().insert(AUDIT_ID, id);
}

/// What is recorded of one request. Its last event is recorded when this is dropped: all parts that still answer hold it.
pub(super) struct Trail {
    auditor: Arc<Auditor>,
    edge: Arc<dyn Edge>,
    decision: Decision,
    is_long_running: bool,
    /// Whether the answer is listened to.
    hears_answer: bool,
    told: Mutex<Told>,
}

struct Told {
    event: Event,
    request: Heard,
    response: Heard,
}

impl Requests {
    /// Begins to follow a request of somebody, or of nobody known, if the policy wants to know of it.
    pub(super) fn follow(
        &self,
        request: Request<Body>,
        who: Option<&UserInfo>,
        id: &HeaderValue,
    ) -> (Request<Body>, Option<Arc<Trail>>) {
        match &self.audit {
            Some(auditor) => Trail::begin(auditor, self.registry.edge(), request, who, id),
            None => (request, None),
        }
    }

    /// Tells of a request of somebody whom nobody knows, which got this answer.
    pub(super) fn tell_unknown(&self, request: &Request<Body>, id: &HeaderValue, answer: &Response<Body>) {
        let Some(auditor) = &self.audit else { return };
        let attributes = Attributes::of(request);
        let decision = auditor.decide(&attributes.asked(None));
        if !decision.wants(Stage::ResponseStarted) {
            return;
        }
        let mut event = begun(request, &attributes, &decision, id, &**self.registry.edge());
        event.stage = Stage::ResponseStarted;
        let status = answer.extensions().get::<Status>();
        let mut told = outcome(answer.status(), status);
        told["message"] = "Authentication failed".into();
        event.response_status = Some(told);
        auditor.tell(&event);
    }
}

impl Trail {
    fn begin(
        auditor: &Arc<Auditor>,
        edge: &Arc<dyn Edge>,
        mut request: Request<Body>,
        who: Option<&UserInfo>,
        id: &HeaderValue,
    ) -> (Request<Body>, Option<Arc<Self>>) {
        let attributes = Attributes::of(&request);
        let decision = auditor.decide(&attributes.asked(who));
        if decision.level == Level::None {
            return (request, None);
        }
        let mut event = begun(&request, &attributes, &decision, id, &**edge);
        if let Some(who) = who {
            event.user = who.user_info();
        }
        let hears_request = decision.level >= Level::Request && attributes.carries_objects();
        let hears_answer = decision.level >= Level::RequestResponse && attributes.carries_objects();
        let sent = Heard::of(content_type(request.headers()));
        let trail = Arc::new(Trail {
            auditor: auditor.clone(),
            edge: edge.clone(),
            decision,
            is_long_running: attributes.is_long_running(),
            hears_answer,
            told: Mutex::new(Told { event, request: sent, response: Heard::default() }),
        });
        trail.tell(Stage::RequestReceived);
        // What outlives HTTP on the connection (exec, and the like) is a part of the answer.
        if let Some(connection) = request.extensions_mut().get_mut::<Connection>() {
            connection.hold(trail.clone());
        }
        if hears_answer {
            // It is recorded as it is, not as it is packed.
            request.headers_mut().remove(ACCEPT_ENCODING);
        }
        if hears_request {
            let heard = trail.clone();
            request = request.map(|body| Overheard::new(body, heard, Some(Side::Request)).boxed_unsync());
        }
        (request, Some(trail))
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, stage: Stage) {
        if self.decision.wants(stage) {
            let mut told = self.lock();
            told.event.stage = stage;
            told.event.stage_timestamp = micro_time(&*self.edge);
            self.auditor.tell(&told.event);
        }
    }

    fn hear(&self, side: Side, data: &[u8]) {
        let mut told = self.lock();
        let heard = match side {
            Side::Request => &mut told.request,
            Side::Response => &mut told.response,
        };
        let mut counted = heard.kept();
        if self.auditor.keep(data.len()) {
            counted += data.len();
            heard.hear(data);
        } else {
            heard.cut();
        }
        self.auditor.forget(counted - heard.kept());
    }

    /// The request acts as somebody else.
    pub(super) fn acts_as(&self, other: &UserInfo) {
        self.lock().event.impersonated_user = Some(other.user_info());
    }

    /// What there is to say of the request.
    pub(super) fn annotate(&self, notes: BTreeMap<String, String>) {
        self.lock().event.annotations.extend(notes);
    }

    /// Whether the request is allowed, and why.
    pub(super) fn judged(&self, allowed: &Result<Reason, Status>) {
        let (decision, reason) = match allowed {
            Ok(reason) => ("allow", reason.to_string()),
            Err(_) => ("forbid", String::new()),
        };
        let mut told = self.lock();
        told.event.annotations.insert(DECISION.to_owned(), decision.to_owned());
        told.event.annotations.insert(REASON.to_owned(), reason);
    }

    /// The answer, which is followed until it is over.
    pub(super) fn answered(self: Arc<Self>, mut response: Response<Body>) -> Response<Body> {
        let status = response.extensions_mut().remove::<Status>();
        let created = response.extensions_mut().remove::<Created>();
        {
            let mut told = self.lock();
            told.event.response_status = Some(outcome(response.status(), status.as_ref()));
            if let Some(reference) = told.event.object_ref.as_mut().filter(|known| known.name.is_empty()) {
                let refused = status.and_then(|status| Some(status.details?.name));
                reference.name = created.map(|Created(name)| name).or(refused).unwrap_or_default();
            }
            if let Some(media_type) = response.headers().get(CONTENT_TYPE).filter(|_| self.hears_answer) {
                let text = media_type.to_str().unwrap_or_default();
                told.response.media_type = text.split(';').next().unwrap_or_default().trim().to_owned();
            }
        }
        if self.is_long_running {
            self.tell(Stage::ResponseStarted);
        }
        let copied = self.hears_answer.then_some(Side::Response);
        response.map(|body| Overheard::new(body, self, copied).boxed_unsync())
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        let Told { event, request, response } = self.told.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.auditor.forget(request.kept() + response.kept());
        event.stage = if std::thread::panicking() { Stage::Panic } else { Stage::ResponseComplete };
        if !self.decision.wants(event.stage) {
            return;
        }
        event.stage_timestamp = micro_time(&*self.edge);
        if event.stage == Stage::Panic {
            event.response_status = Some(failure("InternalError", "the server broke on this request", 500));
        } else if event.response_status.is_none() {
            // 499 is nginx' word for it; HTTP has none.
            let why = "the client went away before it was answered";
            event.response_status = Some(failure("ClientClosedRequest", why, 499));
        }
        if let Some(object) = object_of(request, event, "request", &self.decision) {
            event.take_request(object);
        }
        event.response_object = object_of(response, event, "response", &self.decision);
        self.auditor.tell(event);
    }
}

/// The object that was heard. Where it can't be recorded, the event's annotations say so.
fn object_of(heard: &Heard, event: &mut Event, which: &str, decision: &Decision) -> Option<Value> {
    let annotations = &mut event.annotations;
    match heard.value() {
        Ok(value) => {
            let mut value = value?;
            if decision.omit_managed_fields {
                without_managed_fields(&mut value);
            }
            Some(value)
        }
        Err(Untold::TooLong) => {
            annotations.insert(TRUNCATED.to_owned(), "true".to_owned());
            None
        }
        Err(Untold::Unreadable) => {
            let what = format!("it can't be read as {:?}", heard.media_type);
            annotations.insert(format!("holdfast.dev/{which}-object"), what);
            None
        }
    }
}

/// The event of a request that has just come.
fn begun(
    request: &Request<Body>,
    attributes: &Attributes,
    decision: &Decision,
    id: &HeaderValue,
    edge: &dyn Edge,
) -> Event {
    let (headers, uri) = (request.headers(), request.uri());
    let id = id.to_str().unwrap_or_default().to_owned();
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let peer = request.extensions().get::<Connection>().map(Connection::peer);
    let mut event = Event::received(decision.level, id, micro_time(edge));
    event.request_uri = uri.path_and_query().map_or_else(|| uri.path().to_owned(), ToString::to_string);
    event.verb = attributes.verb().to_owned();
    event.source_ips = addresses(headers, peer);
    event.user_agent = values::cut(agent, LONGEST_AGENT).into_owned();
    event.object_ref = attributes.reference();
    event
}

/// The addresses that a request came by: those that it names, as proxies write them into it, then the connection's own.
fn addresses(headers: &HeaderMap, peer: Option<IpAddr>) -> Vec<String> {
    let named = ["x-forwarded-for", "x-real-ip"].into_iter().flat_map(|name| headers.get_all(name));
    let named = named.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let named = named.filter_map(|address| address.trim().parse::<IpAddr>().ok()).take(MOST_ADDRESSES);
    let mut all: Vec<String> = named.map(|address| address.to_string()).collect();
    let own = peer.map(|peer| peer.to_string()).filter(|own| all.last() != Some(own));
    all.extend(own);
    all
}

/// How a request ended, as a `Status` without its kind.
fn outcome(code: StatusCode, status: Option<&Status>) -> Value {
    let Some(status) = status else { return json!({"metadata": {}, "code": code.as_u16()}) };
    let mut value = status_value(status);
    if let Value::Object(fields) = &mut value {
        fields.remove("kind");
        fields.remove("apiVersion");
    }
    value
}

fn failure(reason: &str, message: &str, code: u16) -> Value {
    json!({"metadata": {}, "status": "Failure", "reason": reason, "message": message, "code": code})
}

fn micro_time(edge: &dyn Edge) -> String {
    format!("{:.6}", edge.now())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEdge;

    #[test]
    fn a_client_s_own_id_counts_if_it_is_fit() {
        let of = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUDIT_ID, HeaderValue::from_str(given).unwrap());
            id_of(&headers, &SystemEdge).to_str().unwrap().to_owned()
        };
        assert_eq!(of("mine-1"), "mine-1");
        for unfit in ["", "a b", &"x".repeat(LONGEST_ID + 1)] {
            let id = of(unfit);
            assert!(id.len() == 36 && id != unfit, "{unfit:?}: {id}");
        }
    }

    #[test]
    fn the_connection_s_own_address_is_the_last() {
        let mut headers = HeaderMap::new();
        let peer: IpAddr = "10.0.0.9".parse().unwrap();
        assert_eq!(addresses(&headers, Some(peer)), ["10.0.0.9"]);
        headers.insert("x-forwarded-for", HeaderValue::from_static("192.0.2.1, nobody, 2001:db8::1"));
        headers.insert("x-real-ip", HeaderValue::from_static("192.0.2.7"));
        let told = ["192.0.2.1", "2001:db8::1", "192.0.2.7", "10.0.0.9"];
        assert_eq!(addresses(&headers, Some(peer)), told);
        headers.insert("x-forwarded-for", HeaderValue::from_str(&"192.0.2.1,".repeat(100)).unwrap());
        assert_eq!(addresses(&headers, Some(peer)).len(), MOST_ADDRESSES + 1);
    }
}
