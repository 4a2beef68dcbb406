//! One request: its user, what it asks for, and whether it may; then it goes to the code that answers it.

use std::net::IpAddr;
use std::sync::Arc;

use access::{Attributes, UNAUTHENTICATED, UserInfo, Wanted, openid_configuration};
use api::Catalog;
use fairness::{Admitted, Class};
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use hyper::body::Body as _;
use machinery::Status;

use super::impersonate::{ANONYMOUS, impersonated};
use super::route::{Route, route};
use super::time_limit::{time_of, timed_out};
use super::trail::{self, Trail};
use super::{Requests, backup, discovery, health, metrics, objects, turn, watch, write};
use crate::aggregation::RequestInfo;
use crate::http::annotations;
use crate::http::compress::{compressed, takes_gzip};
use crate::http::connection::Disbelieved;
use crate::http::encoding::Encoding;
use crate::http::negotiate::accepted_error;
use crate::http::query::Query;
use crate::http::response::{bytes, error_as, full, json, no_such_path, warn};
use crate::http::warnings;
use crate::http::websocket::WebSocket;
use crate::http::{Asked, Body, Connection, Target, only_name};
use crate::usage::{self, Usage};

/// What a request means, before anybody asks whether it may be.
struct Understood<'c> {
    route: Route<'c>,
    query: Query,
    verb: &'static str,
    /// Of an aggregated API: what is wanted of it, if that is about objects.
    info: Option<RequestInfo>,
    /// The only object that a list or a watch can be of, as its field selector says; else empty.
    only: String,
}

impl<'c> Understood<'c> {
    fn parse(requests: &Requests, request: &Request<Body>, catalog: &'c Catalog) -> Result<Self, Status> {
        let query = Query::parse(request.uri().query());
        let (method, path) = (request.method(), request.uri().path());
        if let Some((remote, rest)) = requests.aggregation.remote(path) {
            let info = RequestInfo::parse(&remote.group, rest, method, &query);
            let verb = info.as_ref().map_or_else(|| path_verb(method), |info| info.verb);
            return Ok(Understood { route: Route::Remote(remote), query, verb, info, only: String::new() });
        }
        if let Some(info) =
            Usage::below(path).and_then(|rest| RequestInfo::parse(usage::GROUP, rest, method, &query))
        {
            let verb = info.verb;
            return Ok(Understood {
                route: Route::Usage(info),
                query,
                verb,
                info: None,
                only: String::new(),
            });
        }
        let route = route(path, catalog);
        let verb = match &route {
            Route::Objects(target) => verb(method, target, &query)?,
            _ => path_verb(method),
        };
        let only = only_name(verb, &query);
        Ok(Understood { route, query, verb, info: None, only })
    }

    fn wanted<'a>(&'a self, path: &'a str) -> Wanted<'a> {
        let target = match (&self.route, &self.info) {
            (Route::Usage(info), _) | (_, Some(info)) => return info.wanted(&self.query),
            (Route::Objects(target), _) => target,
            _ => return Wanted::Path { verb: self.verb, path },
        };
        Wanted::Object(Attributes {
            verb: self.verb,
            group: target.resource.group,
            resource: target.resource.plural,
            subresource: &target.subresource,
            namespace: &target.namespace,
            name: if target.name.is_empty() { &self.only } else { &target.name },
            fields: self.query.get("fieldSelector").unwrap_or_default(),
        })
    }
}

impl Requests {
    /// Answers one request of `who` (nobody if there was no certificate): all that the server does, without
    /// sockets and TLS.
    pub(crate) async fn handle(&self, request: Request<Body>, who: Option<UserInfo>) -> Response<Body> {
        let id = trail::id_of(request.headers(), &**self.registry.edge());
        // Boxed: a caller's future would hold all that happens within it, deeper than the compiler follows.
        let mut response = Box::pin(self.respond(request, who, &id)).await;
        trail::show(id, &mut response);
        response
    }

    async fn respond(
        &self,
        request: Request<Body>,
        who: Option<UserInfo>,
        id: &HeaderValue,
    ) -> Response<Body> {
        // What is said at the door counts there, not who says it.
        if let Some(door) = self.door.get().filter(|door| door.is_at(request.uri().path())) {
            let (request, trail) = self.follow(request, Some(&nobody()), id);
            return answered(trail, door.answer(request).await);
        }
        let encoding = accepted_error(request.headers());
        let who = match who {
            Some(who) => Some(who.authenticated()),
            None if is_open(&request) => Some(nobody()),
            None => {
                let peer = request.extensions().get::<Connection>().map(Connection::peer);
                self.of_token(request.headers(), peer).await.map(UserInfo::authenticated)
            }
        };
        let Some(who) = who else {
            let answer = error_as(&Status::unauthorized(), encoding);
            self.tell_unknown(&request, id, &answer);
            return answer;
        };
        let (request, trail) = self.follow(request, Some(&who), id);
        let answer = self.answer_known(request, who, encoding, trail.as_deref()).await;
        answered(trail, answer)
    }

    /// Answers a request of somebody.
    async fn answer_known(
        &self,
        request: Request<Body>,
        who: UserInfo,
        encoding: Encoding,
        trail: Option<&Trail>,
    ) -> Response<Body> {
        let connection = request.extensions().get::<Connection>();
        // Who shows nothing of themselves takes no place of those who do.
        let known = connection.filter(|_| !who.is_in(UNAUTHENTICATED));
        if let Some(Err(status)) = known.map(|connection| connection.know(&who)) {
            return error_as(&status, encoding);
        }
        let who = match impersonated(&self.registry, &who, request.headers()) {
            Ok(Some(other)) => {
                if let Some(trail) = trail {
                    trail.acts_as(&other);
                }
                other
            }
            Ok(None) => who,
            Err(status) => return error_as(&status, encoding),
        };
        let catalog = self.registry.catalog();
        let understood = match Understood::parse(self, &request, &catalog) {
            Ok(understood) => understood,
            Err(status) => return error_as(&status, encoding),
        };
        let class = {
            let state = self.registry.store().snapshot();
            turn::class(&self.fairness, &state, &who, &understood.wanted(request.uri().path()))
        };
        let judge = |wanted: &Wanted<'_>| {
            let allowed = self.registry.judge(&who, wanted);
            if let Some(trail) = trail {
                trail.judged(&allowed);
            }
            allowed.map(|_| ())
        };
        let answer = self.answer(request, &who, &understood, &class, &judge);
        let (answer, notes) = annotations::collect(answer).await;
        if let Some(trail) = trail {
            trail.annotate(notes);
        }
        let mut response = answer.unwrap_or_else(|status| error_as(&status, encoding));
        turn::mark(&class, &mut response);
        response
    }

    /// Whose token came with a request.
    async fn of_token(&self, headers: &HeaderMap, peer: Option<IpAddr>) -> Option<UserInfo> {
        Some(self.objects.whose(bearer(headers)?, &[], peer).await?.who)
    }

    /// Answers when it is the request's turn.
    async fn answer(
        &self,
        mut request: Request<Body>,
        who: &UserInfo,
        understood: &Understood<'_>,
        class: &Class,
        judge: &(dyn Fn(&Wanted<'_>) -> Result<(), Status> + Sync),
    ) -> Result<Response<Body>, Status> {
        let Understood { route, query, verb, info, .. } = understood;
        let is_endless = info.as_ref().is_some_and(RequestInfo::is_long_running);
        let takes_seat = !class.is_exempt()
            && match route {
                Route::Objects(target) => !is_long_running(target, verb),
                Route::Remote(_) => !is_endless,
                _ => false,
            };
        let mut room = None;
        if takes_seat && !request.body().is_end_stream() {
            // Its body is read before its turn: one that comes slowly would hold a seat while nothing is done. But only
            // for users who may at all: it takes memory.
            judge(&understood.wanted(request.uri().path()))?;
            let body = std::mem::replace(request.body_mut(), full(""));
            let read = tokio::time::timeout(time_of(query)?, self.ahead.read(body)).await;
            (*request.body_mut(), room) = read.map_err(|_| timed_out())??;
        }
        let admitted = match route {
            Route::Objects(target) if is_long_running(target, verb) => None,
            Route::Remote(_) if is_endless => None,
            Route::Objects(target) => {
                // What nothing limits isn't measured.
                let seats = match class.is_exempt() {
                    true => 1,
                    false => turn::seats(&self.registry.store().snapshot(), verb, target, query),
                };
                Some(turn::admit(&self.fairness, class, seats, time_of(query)?).await?)
            }
            _ => Some(turn::admit(&self.fairness, class, 1, time_of(query)?).await?),
        };
        drop(room);
        let wanted = understood.wanted(request.uri().path());
        // Also where it was asked before the body was read: a right may have gone during the wait.
        judge(&wanted)?;
        if let Route::Remote(remote) = route {
            let time = if is_endless { None } else { Some(time_of(query)?) };
            return self.aggregation.forward(remote, who, request, time).await;
        }
        if let Route::Usage(info) = route {
            let answer = self.usage.answer(info, query, &self.objects.beside);
            let answer = tokio::time::timeout(time_of(query)?, answer).await;
            let answer = answer.unwrap_or_else(|_| Err(timed_out()))?;
            return Ok(self.objects.outgoing.counted(answer, request.extensions().get()));
        }
        let Route::Objects(target) = route else {
            let (parts, _) = request.into_parts();
            let answer = self.answer_path(route, verb, who, &parts, query).await?;
            return Ok(self.objects.outgoing.counted(answer, parts.extensions.get()));
        };
        let connection = request.extensions().get::<Connection>().cloned();
        let asked = Asked { who, target, query, verb, connection: connection.as_ref() };
        let encoding = accepted_error(request.headers());
        let started = self.registry.edge().instant();
        let running = match *verb {
            "get" | "list" | "watch" => metrics::Running::Reading,
            _ => metrics::Running::Changing,
        };
        let running = self.objects.metrics.running(running);
        let (answer, mut warnings) = warnings::collect(self.answer_asked(&asked, request, admitted)).await;
        drop(running);
        let code = answer.as_ref().map_or_else(|status| status.code, |response| response.status().as_u16());
        let took = self.registry.edge().instant().saturating_duration_since(started);
        self.objects.metrics.answered(verb, target, code, took);
        warnings.extend(deprecation(target.resource).map(str::to_owned));
        if warnings.is_empty() {
            return answer;
        }
        let mut response = answer.unwrap_or_else(|status| error_as(&status, encoding));
        warn(&mut response, &warnings);
        Ok(response)
    }

    /// Answers what is no object's: discovery, health and the like.
    async fn answer_path(
        &self,
        route: &Route<'_>,
        verb: &str,
        who: &UserInfo,
        request: &http::request::Parts,
        query: &Query,
    ) -> Result<Response<Body>, Status> {
        match route {
            Route::Objects(_) | Route::Remote(_) | Route::Usage(_) | Route::NoSuchResource => {
                Err(discovery::no_such_resource())
            }
            Route::Nothing => Ok(no_such_path()),
            _ if verb != "get" => Err(Status::method_not_allowed().about("", "", "")),
            Route::CoreVersions => Ok(self.discovery().root(true, &request.headers)),
            Route::Groups => Ok(self.discovery().root(false, &request.headers)),
            Route::Group(group) => Ok(self.discovery().group(group)),
            Route::Resources { group, version } => Ok(self.discovery().resources(group, version)),
            Route::Swagger => self.openapi.v2(&request.headers).await,
            Route::OpenApi(path) => self.openapi.v3(path, who, query, request).await,
            Route::Backup => backup::backup(who, &**self.registry.store()).await,
            Route::Status(whose) => match self.overview.get() {
                Some(shown) => shown.answer(*whose).await,
                None => Ok(no_such_path()),
            },
            Route::Metrics => Ok(self.objects.metrics.text(&**self.registry.store(), &self.fairness)),
            Route::TokenIssuer => Ok(json(200, &openid_configuration(self.address()))),
            Route::TokenKeys => {
                let keys = self.registry.tokens().keys().to_string();
                Ok(bytes(200, "application/jwk-set+json", keys))
            }
            Route::Version => Ok(json(200, &discovery::version())),
            Route::Health { endpoint, check } => {
                let closing = *self.objects.closing.borrow();
                Ok(health::health(endpoint, check, query, &**self.registry.store(), closing))
            }
        }
    }

    async fn answer_asked(
        &self,
        asked: &Asked<'_>,
        mut request: Request<Body>,
        admitted: Option<Admitted>,
    ) -> Result<Response<Body>, Status> {
        let Asked { target, query, verb, .. } = *asked;
        let closing = || self.objects.closing.clone();
        match (target.subresource.as_str(), verb) {
            ("proxy", _) => self.proxy.forward(asked, request).await,
            ("log", "get") => {
                let socket = WebSocket::of(&mut request)?;
                let answer = self.proxy.logs(asked).await?;
                match socket {
                    Some(socket) => socket.pieces(answer, asked.connection, closing()),
                    None => Ok(answer),
                }
            }
            ("exec" | "attach" | "portforward", _) => self.proxy.stream(asked, request).await,
            (_, "watch") => {
                let socket = WebSocket::of(&mut request)?;
                let answer = watch::start(&self.objects, asked, request.headers(), admitted).await?;
                match socket {
                    Some(socket) => socket.lines(answer, asked.connection, closing()),
                    None => Ok(answer),
                }
            }
            _ => {
                let limit = time_of(query)?;
                let answer = async {
                    match verb {
                        "get" | "list" => {
                            let answer = objects::read(&self.objects, asked, request.headers()).await?;
                            let smaller = takes_gzip(request.headers());
                            Ok(if smaller { compressed(answer).await } else { answer })
                        }
                        _ => write::write(&self.objects, asked, request).await,
                    }
                };
                let answer =
                    tokio::time::timeout(limit, answer).await.unwrap_or_else(|_| Err(timed_out()))?;
                Ok(self.objects.outgoing.counted(answer, asked.connection))
            }
        }
    }
}

/// An answer, followed to its end if its request is.
fn answered(trail: Option<Arc<Trail>>, answer: Response<Body>) -> Response<Body> {
    match trail {
        Some(trail) => trail.answered(answer),
        None => answer,
    }
}

/// Who shows nothing of themselves.
fn nobody() -> UserInfo {
    UserInfo::new(ANONYMOUS, [UNAUTHENTICATED])
}

/// Whether a request may come from anybody, as far as roles give it to them: it asks how the server is, as load balancers
/// do, and shows neither a token nor a certificate. What is shown and isn't good gets nothing, not even what it would without.
fn is_open(request: &Request<Body>) -> bool {
    matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz")
        && matches!(*request.method(), Method::GET | Method::HEAD)
        && !request.headers().contains_key(AUTHORIZATION)
        && request.extensions().get::<Disbelieved>().is_none()
}

/// The bearer token of a request.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// Whether a request lasts for as long as its client wants, and so takes no seat: all but watches, which take one
/// until they begin to send what there is at first (upstream's `longRunningFunc`).
fn is_long_running(target: &Target, verb: &str) -> bool {
    verb == "proxy" || matches!(&*target.subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
}

/// The warning for clients of a resource about its end (upstream's `APILifecycleDeprecated`).
fn deprecation(resource: &machinery::Resource) -> Option<&str> {
    if let Some(custom) = resource.custom() {
        return custom.deprecation();
    }
    match (resource.group, resource.plural) {
        ("", "componentstatuses") => Some("v1 ComponentStatus is deprecated in v1.19+"),
        ("", "endpoints") => {
            Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
        }
        _ => None,
    }
}

/// The verb of a request for a path that is no resource's: its method.
fn path_verb(method: &Method) -> &'static str {
    match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        _ => "unknown",
    }
}

/// The verb of a request; 405 where the resource has none such.
fn verb(method: &Method, target: &Target, query: &Query) -> Result<&'static str, Status> {
    let one = !target.name.is_empty();
    let verb = match *method {
        Method::GET | Method::HEAD if query.flag("watch") && target.subresource.is_empty() => "watch",
        Method::GET | Method::HEAD => {
            if one {
                "get"
            } else {
                "list"
            }
        }
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if one => "delete",
        Method::DELETE => "deletecollection",
        _ => return Err(Status::method_not_allowed().about("", "", "")),
    };
    let resource = target.resource;
    if target.subresource.is_empty() {
        let fits = match verb {
            "create" => !one,
            "update" | "patch" => one,
            _ => true,
        };
        // Objects of all namespaces can be listed and watched, nothing else.
        let everywhere = resource.namespaced && target.namespace.is_empty();
        let fits = fits && (!everywhere || matches!(verb, "list" | "watch"));
        if fits && resource.allows(verb) {
            return Ok(verb);
        }
        return Err(Status::method_not_allowed().about("", "", ""));
    }
    let Some(subresource) = resource.subresource(&target.subresource) else {
        return Err(discovery::no_such_resource());
    };
    // A proxy carries every method.
    if subresource.name == "proxy" || subresource.verbs.contains(&verb) {
        return Ok(verb);
    }
    Err(Status::method_not_allowed().about("", "", ""))
}
