//! The pretend cluster's API server: objects, watches, and what pods answer through it.

use super::{FakeCluster, PODS, collection_of, condition};
use crate::fake_objects::{app, discovery, is_of, merge};
use crate::fake_processes::signed;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http::{Method, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

type Body = BoxBody<Bytes, Infallible>;

impl FakeCluster {
    pub(super) async fn serve(
        self: Arc<Self>,
        request: Request<Incoming>,
        is_vip: bool,
    ) -> Result<Response<Body>, Infallible> {
        let silence = self.silence.subscribe();
        let began = *silence.borrow();
        if is_vip && began % 2 == 1 {
            std::future::pending::<()>().await;
        }
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let path = parts.uri.path().to_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        if query.contains("watch=true") {
            return Ok(Response::new(self.watch(&path, &query, is_vip.then_some((silence, began)))));
        }
        let (code, value) = match self.proxied(&path) {
            Some(Some(text)) => return Ok(Response::new(Full::new(Bytes::from(text)).boxed())),
            Some(None) => (503, json!({})),
            None => self.answer(&parts.method, &path, app(&query), &body),
        };
        let response =
            Response::builder().status(code).body(Full::new(Bytes::from(value.to_string())).boxed());
        Ok(response.unwrap())
    }

    /// What a pod answers through the API, if one does; nothing where the path leads to none.
    fn proxied(&self, path: &str) -> Option<Option<String>> {
        let path = path.strip_suffix("/proxy/")?;
        let Some((_, rest)) = path.split_once("/pods/") else {
            // The service, turn and turn about.
            let ready =
                self.all(PODS).into_iter().filter(|(_, p)| p["status"]["conditions"] == condition(true));
            let ready: Vec<Value> = ready.map(|(_, pod)| pod).collect();
            let turn = self.turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            return Some(ready.get(turn % ready.len().max(1)).map(|pod| self.words_of(pod)));
        };
        let name = rest.split(':').next()?;
        let (_, pod) = self.found(|path| path.ends_with(&format!("/pods/{name}"))).pop()?;
        if name.starts_with("db-") {
            return Some(self.answer_of(&pod));
        }
        Some((pod["status"]["conditions"] == condition(true)).then(|| self.words_of(&pod)))
    }

    fn words_of(&self, pod: &Value) -> String {
        let name = pod["metadata"]["name"].as_str().unwrap();
        signed(name, name, pod["spec"]["nodeName"].as_str().unwrap())
    }

    fn answer(&self, method: &Method, path: &str, app: Option<&str>, body: &[u8]) -> (u16, Value) {
        let missing = || (404, json!({"kind": "Status", "reason": "NotFound", "message": path}));
        if path == "/api" {
            let kinds = [("Pod", "pods"), ("Service", "services")];
            return (200, discovery("", &kinds));
        }
        if path == "/apis" {
            return (
                200,
                discovery("apps", &[("Deployment", "deployments"), ("StatefulSet", "statefulsets")]),
            );
        }
        match *method {
            Method::POST => {
                let object: Value = serde_json::from_slice(body).unwrap();
                let path = format!("{path}/{}", object["metadata"]["name"].as_str().unwrap());
                let made = self.put(&path, object);
                if path.starts_with("/api/v1/namespaces/") && path.split('/').count() == 5 {
                    self.put(
                        &format!("{path}/serviceaccounts/default"),
                        json!({"metadata": {"name": "default"}}),
                    );
                }
                if path.contains("-load-") {
                    self.count(&path, made.clone());
                } else if path.contains("/statefulsets/") {
                    self.make_stateful(&path);
                } else if path.contains("/deployments/") {
                    for host in ["n1", "n2", "n3"] {
                        self.set_pod(&path, &self.next_name(), host, self.script.healthy);
                    }
                }
                (201, made)
            }
            Method::PATCH => {
                let Some(mut object) = self.get(path) else { return missing() };
                merge(&mut object, &serde_json::from_slice(body).unwrap());
                let made = self.put(path, object);
                if path.contains("/deployments/") {
                    self.roll(path);
                }
                (200, made)
            }
            Method::DELETE => {
                let Some(gone) = self.remove(path) else { return missing() };
                if let (Some((deployment, _)), true) =
                    (self.all("/deployments").first(), path.contains("/pods/"))
                {
                    let taken: Vec<Value> =
                        self.all(PODS).into_iter().map(|(_, p)| p["spec"]["nodeName"].clone()).collect();
                    let on = self.on();
                    let free = on.iter().find(|h| !taken.contains(&json!(h))).or(on.last()).unwrap();
                    self.set_pod(deployment, &self.next_name(), free, true);
                }
                (200, gone)
            }
            _ => match self.get(path) {
                Some(object) => (200, object),
                None if path.ends_with('s') || path.ends_with("endpointslices") => {
                    let state = self.state.lock().unwrap();
                    let of = |(p, o): &(&String, &Value)| collection_of(p) == Some(path) && is_of(o, app);
                    let items: Vec<&Value> = state.objects.iter().filter(of).map(|(_, o)| o).collect();
                    let revision = state.log.len().to_string();
                    (200, json!({"metadata": {"resourceVersion": revision}, "items": items}))
                }
                None => missing(),
            },
        }
    }

    /// Events from a revision on. Through the virtual address they end, unsaid, with the next silence.
    fn watch(&self, path: &str, query: &str, until: Option<(watch::Receiver<u64>, u64)>) -> Body {
        let from = query.split('&').find_map(|p| p.strip_prefix("resourceVersion=")).unwrap();
        let (state, path, app) = (self.state.clone(), path.to_owned(), app(query).map(str::to_owned));
        let begin = (from.parse::<usize>().unwrap(), self.changed.subscribe());
        let events = stream::unfold(begin, move |(mut at, mut changed)| {
            let (state, path, app, until) = (state.clone(), path.clone(), app.clone(), until.clone());
            async move {
                loop {
                    changed.borrow_and_update();
                    if until.as_ref().is_some_and(|(silence, began)| *silence.borrow() != *began) {
                        std::future::pending::<()>().await;
                    }
                    let next = {
                        let state = state.lock().unwrap();
                        let is_asked = |c: &String, object| *c == path && is_of(object, app.as_deref());
                        let found =
                            state.log.iter().enumerate().skip(at).find(|(_, (c, _, o))| is_asked(c, o));
                        found.map(|(i, (_, kind, object))| (i, json!({"type": kind, "object": object})))
                    };
                    match next {
                        Some((i, event)) => {
                            at = i + 1;
                            let line = Bytes::from(format!("{event}\n"));
                            return Some((Ok::<_, Infallible>(Frame::data(line)), (at, changed)));
                        }
                        None => changed.changed().await.ok()?,
                    }
                }
            }
        });
        BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(events.boxed()))))
    }
}

/// A stream behind a lock: bodies have to be `Sync`.
struct SyncStream<S>(Mutex<S>);

impl<S: stream::Stream + Unpin> stream::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        self.get_mut().0.get_mut().unwrap().poll_next_unpin(context)
    }
}
