//! Watches over HTTP: event after event, until the time is over or the server ends.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairness::Admitted;
use futures::stream;
use http::{HeaderMap, HeaderValue, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use machinery::{Include, Resource, Status};
use objects::{load, stamped_at};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use super::Objects;
use super::metrics::{self, Counted};
use super::objects::{include, selection};
use crate::clock::Edge;
use crate::http::encoding::Encoding;
use crate::http::negotiate::{Accepted, Shape, accepted_stream};
use crate::http::outgoing::{Pieces, Share};
use crate::http::response::{full, status_value};
use crate::http::{Asked, Body};
use crate::registry::{Match, Watch, WatchEnd, WatchEvent, WatchOptions, told_as};

/// How often a watch that wants bookmarks gets one.
///
/// As upstream (`defaultBookmarkFrequency` of its watch cache).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The shortest time that a watch without `timeoutSeconds` runs; up to twice of it is drawn, so that watches
/// don't all end together.
///
/// Upstream's default is the same (`--min-request-timeout`).
const SHORTEST_DEFAULT: u32 = 1800;
/// How many bytes an object counts for that was there at first and isn't sent yet: the store has it too.
const INITIAL: usize = 64;

/// Starts a watch; its events are the body of the answer.
pub(crate) async fn start(
    with: &Objects,
    asked: &Asked<'_>,
    headers: &HeaderMap,
    admitted: Option<Admitted>,
) -> Result<Response<Body>, Status> {
    let accepted = accepted_stream(headers, asked.target.resource)?;
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
    let default = || u64::from(SHORTEST_DEFAULT + with.registry.edge().below(SHORTEST_DEFAULT));
    let seconds = query.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).unwrap_or_else(default);
    let frames = Frames {
        resource: asked.target.resource.clone(),
        accepted,
        include: include(query)?,
        columns_told: false,
        edge: with.registry.edge().clone(),
    };
    let tells_initial = options.initial != Some(false);
    let is_long = tells_initial && with.registry.is_long(asked.target.resource, &asked.target.namespace);
    let started = with.registry.watch(options);
    let started = if is_long { with.beside.read(started).await } else { started.await };
    let watch = match started {
        Ok(watch) => watch,
        // As upstream: a watch from too long ago is one that ends with an error.
        Err(status) if status.code == 410 => {
            return Ok(response(full(frames.error(&status)), accepted.encoding));
        }
        Err(status) => return Err(status),
    };
    let share = with.outgoing.share(asked.connection.cloned());
    let initial = watch.initial() * INITIAL;
    share.add(initial);
    let running = Running {
        admitted: admitted.filter(|_| initial > 0),
        share,
        initial,
        pieces: Pieces::default(),
        is_over: false,
        watch,
        frames,
        end: Box::pin(sleep(Duration::from_secs(seconds))),
        bookmark: bookmarks.then(|| Box::pin(sleep(BOOKMARK_EVERY))),
        closing: with.closing.clone(),
        _counted: with.metrics.running(metrics::Running::Watching),
    };
    let events = stream::unfold(Some(running), |running| async move {
        let (bytes, next) = running?.step().await?;
        Some((Ok::<_, Infallible>(Frame::data(bytes)), next))
    });
    Ok(response(StreamBody::new(events).map_err(never).boxed_unsync(), accepted.encoding))
}

fn never(never: Infallible) -> hyper::Error {
    match never {}
}

fn response(body: Body, encoding: Encoding) -> Response<Body> {
    let mut response = Response::new(body);
    let content_type = HeaderValue::from_static(encoding.stream_type());
    response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
    response
}

struct Running {
    /// The seat that it takes until it begins to send what was there at first.
    admitted: Option<Admitted>,
    /// What waits for the client: counted in bytes, so that a client that never reads can be ended.
    share: Share,
    /// How much of it stands for what was there at first and isn't sent yet.
    initial: usize,
    /// What is sent next.
    pieces: Pieces,
    /// Nothing comes after that.
    is_over: bool,
    watch: Watch,
    frames: Frames,
    end: std::pin::Pin<Box<Sleep>>,
    bookmark: Option<std::pin::Pin<Box<Sleep>>>,
    closing: watch::Receiver<bool>,
    _counted: Counted,
}

impl Running {
    /// The next bytes, and the watch; nothing at its end.
    async fn step(mut self) -> Option<(Bytes, Option<Self>)> {
        // No longer than until the first of it is written: the rest comes as fast as the client reads.
        let _seat = self.admitted.take();
        loop {
            if let Some(piece) = self.pieces.next() {
                return Some((piece, Some(self)));
            }
            if self.is_over {
                return None;
            }
            let bytes = self.next().await?;
            self.pieces = self.share.pieces(bytes);
            let initial = self.watch.initial() * INITIAL;
            self.share.give_back(self.initial - initial);
            self.initial = initial;
        }
    }

    /// The frames of the next events; nothing at the watch's end.
    async fn next(&mut self) -> Option<Bytes> {
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
        let status = match events {
            Ok(events) => match self.frames_of(&events) {
                Ok(frames) => return Some(frames),
                Err(status) => status,
            },
            Err(WatchEnd::Store(error @ store::Error::Compacted { .. })) => {
                Status::expired(format!("too old resource version: {error}"))
            }
            Err(WatchEnd::Store(_)) => return None,
            // The client lists again, and finds out there whether it lasts.
            Err(WatchEnd::Unserved(status)) => status,
        };
        self.is_over = true;
        Some(self.frames.error(&status))
    }

    /// The frames of some events. The frame of one alone goes out as it is shared, without a copy.
    fn frames_of(&mut self, events: &[WatchEvent]) -> Result<Bytes, Status> {
        if let [event] = events {
            return self.frames.frame(event);
        }
        let mut bytes = Vec::new();
        for event in events {
            match self.frames.frame(event) {
                Ok(frame) => bytes.extend_from_slice(&frame),
                Err(status) => {
                    bytes.extend_from_slice(&self.frames.error(&status));
                    self.is_over = true;
                    break;
                }
            }
        }
        Ok(bytes.into())
    }
}

/// Writes events in the form that the client wants.
struct Frames {
    resource: Resource,
    accepted: Accepted,
    include: Include,
    /// Only the first Table of a watch says its columns.
    columns_told: bool,
    edge: Arc<dyn Edge>,
}

impl Frames {
    fn frame(&mut self, event: &WatchEvent) -> Result<Bytes, Status> {
        match event {
            WatchEvent::Initial(kv) => self.object("ADDED", kv, kv.mod_revision),
            WatchEvent::Change(kind, kv, told) => {
                let key = (told_as(&self.resource), *kind, self.form());
                let frame = told.frame(key, || self.object(kind, kv, told.event.revision()));
                self.columns_told |= self.accepted.shape == Shape::Table;
                frame
            }
            WatchEvent::Bookmark { revision, initial_end } => {
                let bookmark = self.bookmark(*revision, *initial_end);
                self.framed("BOOKMARK", &bookmark)
            }
        }
    }

    /// A number that is the same for watches that look the same.
    fn form(&self) -> u32 {
        let Accepted { shape, encoding } = self.accepted;
        let table =
            if shape == Shape::Table { self.include as u32 * 2 + u32::from(self.columns_told) } else { 0 };
        (shape as u32 * 8 + encoding as u32) * 8 + table
    }

    fn error(&self, status: &Status) -> Bytes {
        // A Status can be written in every encoding.
        self.framed("ERROR", &status_value(status)).unwrap_or_default()
    }

    /// One event around a value.
    fn framed(&self, kind: &str, object: &Value) -> Result<Bytes, Status> {
        match self.accepted.encoding {
            Encoding::Cbor => Encoding::Cbor.encode(&json!({"type": kind, "object": object})),
            Encoding::Protobuf => {
                Ok(api::protobuf_watch_frame(kind, &Encoding::Protobuf.encode(object)?).into())
            }
            Encoding::Json | Encoding::Yaml => Ok(line(kind, object.to_string().as_bytes())),
        }
    }

    fn object(
        &mut self,
        kind: &str,
        kv: &store::KeyValue,
        revision: store::Revision,
    ) -> Result<Bytes, Status> {
        if self.accepted.shape == Shape::Plain && self.accepted.encoding == Encoding::Json {
            return Ok(line(kind, &stamped_at(kv, revision)));
        }
        let mut object = load(kv)?;
        object.set_meta("resourceVersion", revision.to_string());
        let value = match self.accepted.shape {
            Shape::Plain => object.into_value(),
            Shape::Metadata => machinery::partial_metadata(&self.resource, &object),
            Shape::Table => {
                let meta = json!({"resourceVersion": revision.to_string()});
                let now = self.edge.second().as_second();
                let table = machinery::table(&self.resource, &[object], &meta, self.include, now);
                self.columns_once(table)
            }
        };
        self.framed(kind, &value)
    }

    fn bookmark(&mut self, revision: store::Revision, initial_end: bool) -> Value {
        let mut meta = json!({"resourceVersion": revision.to_string()});
        if initial_end {
            meta["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, version) = (self.resource.kind, self.resource.api_version());
        match self.accepted.shape {
            Shape::Plain => json!({"kind": kind, "apiVersion": version, "metadata": meta}),
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta})
            }
            Shape::Table => {
                let now = self.edge.second().as_second();
                let table = machinery::table(&self.resource, &[], &meta, self.include, now);
                // Upstream's bookmark is a row without cells whose object carries the metadata.
                let object = json!({"kind": kind, "apiVersion": version, "metadata": meta});
                let mut table = self.columns_once(table);
                table["rows"] = json!([{"cells": [], "object": object}]);
                table
            }
        }
    }

    fn columns_once(&mut self, mut table: Value) -> Value {
        if self.columns_told {
            table["columnDefinitions"] = Value::Null;
        }
        self.columns_told = true;
        table
    }
}

/// One event as a line of JSON.
fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut line = Vec::with_capacity(object.len() + kind.len() + 24);
    line.extend_from_slice(b"{\"type\":\"");
    line.extend_from_slice(kind.as_bytes());
    line.extend_from_slice(b"\",\"object\":");
    line.extend_from_slice(object);
    line.extend_from_slice(b"}\n");
    line.into()
}
