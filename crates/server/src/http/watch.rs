//! Watches over HTTP: one JSON object a line, until the time is over or the server ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use api::{Include, Resource, Status};
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use super::Body;
use super::negotiate::{Accepted, Shape, accepted};
use super::objects::{include, selection};
use super::response::{JSON, status_value};
use super::serve::Asked;
use crate::clock;
use crate::registry::{Match, Watch, WatchEvent, WatchOptions, load, stamped_at};
use crate::server::Server;

/// How often a watch that wants bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The shortest time that a watch without `timeoutSeconds` runs; up to twice of it is drawn, so that watches
/// don't all end together.
const SHORTEST_DEFAULT: u32 = 1800;

/// Starts a watch; its events are the body of the answer.
pub(crate) async fn start(
    server: &Arc<Server>,
    asked: &Asked<'_>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let accepted = accepted(headers)?;
    let query = asked.query;
    let bookmarks = query.flag("allowWatchBookmarks");
    let options = WatchOptions {
        resource: asked.target.resource,
        namespace: &asked.target.namespace,
        selection: selection(asked)?,
        resource_version: query.get("resourceVersion"),
        matching: Match::parse(query.get("resourceVersionMatch"))?,
        initial: query.choice("sendInitialEvents"),
        bookmarks,
    };
    let default = || u64::from(SHORTEST_DEFAULT + clock::below(SHORTEST_DEFAULT));
    let seconds = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).unwrap_or_else(default);
    let lines =
        Lines { resource: asked.target.resource, accepted, include: include(query)?, columns_told: false };
    let watch = match server.registry().watch(options).await {
        Ok(watch) => watch,
        // As upstream: a watch from too long ago is one that ends with an error.
        Err(status) if status.code == 410 => {
            return Ok(response(
                http_body_util::Full::new(Bytes::from(error_line(&status))).map_err(never).boxed_unsync(),
            ));
        }
        Err(status) => return Err(status),
    };
    let running = Running {
        watch,
        lines,
        end: Box::pin(sleep(Duration::from_secs(seconds))),
        bookmark: bookmarks.then(|| Box::pin(sleep(BOOKMARK_EVERY))),
        closing: server.closing(),
    };
    let events = stream::unfold(Some(running), |running| async move {
        let (bytes, next) = running?.step().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), next))
    });
    Ok(response(StreamBody::new(events).map_err(never).boxed_unsync()))
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(http::header::CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

struct Running {
    watch: Watch,
    lines: Lines,
    end: std::pin::Pin<Box<Sleep>>,
    bookmark: Option<std::pin::Pin<Box<Sleep>>>,
    closing: watch::Receiver<bool>,
}

impl Running {
    /// The next lines, and the watch if it goes on; nothing at its end.
    async fn step(mut self) -> Option<(Bytes, Option<Self>)> {
        let bookmark = async {
            match &mut self.bookmark {
                Some(timer) => timer.await,
                None => std::future::pending().await,
            }
        };
        let events = tokio::select! {
            biased;
            _ = self.closing.wait_for(|closing| *closing) => return None,
            () = &mut self.end => return None,
            events = self.watch.next() => events,
            () = bookmark => {
                self.bookmark = Some(Box::pin(sleep(BOOKMARK_EVERY)));
                Ok(self.watch.bookmark().into_iter().collect())
            }
        };
        let events = match events {
            Ok(events) => events,
            Err(error @ store::Error::Compacted { .. }) => {
                let line = error_line(&Status::expired(format!("too old resource version: {error}")));
                return Some((line.into(), None));
            }
            Err(_) => return None,
        };
        let mut bytes = Vec::new();
        for event in &events {
            if let Err(status) = self.lines.write(event, &mut bytes) {
                bytes.extend_from_slice(&error_line(&status));
                return Some((bytes.into(), None));
            }
        }
        Some((bytes.into(), Some(self)))
    }
}

fn error_line(status: &Status) -> Vec<u8> {
    let mut line = json!({"type": "ERROR", "object": status_value(status)}).to_string().into_bytes();
    line.push(b'\n');
    line
}

/// Writes events as lines.
struct Lines {
    resource: &'static Resource,
    accepted: Accepted,
    include: Include,
    /// Only the first Table of a watch says its columns.
    columns_told: bool,
}

impl Lines {
    fn write(&mut self, event: &WatchEvent, out: &mut Vec<u8>) -> Result<(), Status> {
        let (kind, object) = match event {
            WatchEvent::Object(kind, kv, revision) => (*kind, self.object(kv, *revision)?),
            WatchEvent::Bookmark { revision, initial_end } => {
                ("BOOKMARK", self.bookmark(*revision, *initial_end))
            }
        };
        out.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
        out.extend_from_slice(&object);
        out.extend_from_slice(b"}\n");
        Ok(())
    }

    fn object(&mut self, kv: &store::KeyValue, revision: store::Revision) -> Result<Vec<u8>, Status> {
        if self.accepted.shape == Shape::Plain {
            return Ok(stamped_at(kv, revision));
        }
        let mut object = load(kv)?;
        object.set_meta("resourceVersion", revision.to_string());
        let value = match self.accepted.shape {
            Shape::Metadata => api::partial_metadata(&object),
            _ => {
                let meta = json!({"resourceVersion": revision.to_string()});
                let table =
                    api::table(self.resource, &[object], &meta, self.include, clock::now().as_second());
                self.columns_once(table)
            }
        };
        Ok(value.to_string().into_bytes())
    }

    fn bookmark(&mut self, revision: store::Revision, initial_end: bool) -> Vec<u8> {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = (self.resource.kind, self.resource.api_version());
        let value = match self.accepted.shape {
            Shape::Plain => json!({"kind": kind, "apiVersion": version, "metadata": meta}),
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Shape::Table => {
                let table = api::table(self.resource, &[], &meta, self.include, clock::now().as_second());
                // Upstream's bookmark is a row without cells whose object carries the metadata.
                let object = json!({"kind": kind, "apiVersion": version, "metadata": meta});
                let mut table = self.columns_once(table);
                table["rows"] = json!([{"cells": [], "object": object}]);
                table
            }
        };
        value.to_string().into_bytes()
    }

    fn columns_once(&mut self, mut table: Value) -> Value {
        if self.columns_told {
            table["columnDefinitions"] = Value::Null;
        }
        self.columns_told = true;
        table
    }
}
