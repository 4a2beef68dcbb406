//! Answers that are objects and lists of them, in the form that the client wants.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};
use jiff::Timestamp;
use machinery::{Include, Object, Resource, Status};
use objects::{Named, load, put_list_items};
use serde_json::{Value, json};
use store::{KeyValue, Revision};

use super::{Objects, component_status};
use crate::http::beside::LARGE;
use crate::http::encoding::{Encoding, protobuf_list};
use crate::http::negotiate::{Accepted, Shape, accepted_for};
use crate::http::query::Query;
use crate::http::response::{JSON, bytes};
use crate::http::{Asked, Body};
use crate::registry::{Freshness, ListOptions, Listing, Match, Selection};

/// How many times the size of its JSON an object takes in memory while it is looked at.
const PARSED: usize = 8;

/// Answers get and list.
pub(crate) async fn read(
    with: &Objects,
    asked: &Asked<'_>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let target = asked.target;
    if target.resource.kind == "ComponentStatus" {
        return component_status::read(&with.registry, asked, headers).await;
    }
    let (accepted, now) = (accepted_for(headers, target.resource)?, with.registry.edge().second());
    if asked.verb == "list" {
        let options = list_options(asked)?;
        let answer = async {
            let listing = with.registry.list(&options).await?;
            let bytes: usize = listing.items.iter().map(|kv| kv.value.len()).sum();
            let times = if accepted.is_plain_json() { 1 } else { PARSED };
            let room = match bytes > LARGE {
                true => Some(with.outgoing.room(bytes * times, asked.connection.cloned()).await?),
                false => None,
            };
            let mut answer = list(target.resource, &listing, accepted, asked.query, now)?;
            if let Some(room) = room {
                answer.extensions_mut().insert(room);
            }
            Ok(answer)
        };
        return match with.registry.is_long(target.resource, &target.namespace) {
            true => with.beside.read(answer).await,
            false => answer.await,
        };
    }
    let named = Named { resource: target.resource, namespace: &target.namespace, name: &target.name };
    let freshness = Freshness::parse(asked.query.get("resourceVersion"))?;
    if target.subresource == "scale" {
        let scale = with.registry.scale(&named, freshness).await?;
        return object(
            target.resource,
            200,
            scale,
            Accepted { shape: Shape::Plain, ..accepted },
            asked.query,
            now,
        );
    }
    let kv = with.registry.get(&named, freshness).await?;
    if accepted.is_plain_json() {
        return Ok(bytes(200, JSON, objects::stamped(&kv)));
    }
    let answer = async { object(target.resource, 200, load(&kv)?, accepted, asked.query, now) };
    if kv.value.len() > LARGE { with.beside.read(answer).await } else { answer.await }
}

/// The options of a list in a query.
pub(crate) fn list_options<'a>(asked: &Asked<'a>) -> Result<ListOptions<'a>, Status> {
    let (target, query) = (asked.target, asked.query);
    Ok(ListOptions {
        resource: target.resource,
        namespace: &target.namespace,
        selection: selection(asked)?,
        limit: query.number("limit")?.unwrap_or_default(),
        continued: query.get("continue"),
        resource_version: query.get("resourceVersion"),
        matching: Match::parse(query.get("resourceVersionMatch"))?,
    })
}

/// The selectors in a query; a watch of one object selects its name.
pub(crate) fn selection(asked: &Asked<'_>) -> Result<Selection, Status> {
    let (target, query) = (asked.target, asked.query);
    let one = format!("metadata.name={}", target.name);
    let fields = if target.name.is_empty() { query.get("fieldSelector") } else { Some(one.as_str()) };
    Selection::parse(target.resource, query.get("labelSelector"), fields)
}

/// What a Table's rows carry of their objects.
pub(crate) fn include(query: &Query) -> Result<Include, Status> {
    match query.get("includeObject") {
        None | Some("Metadata") => Ok(Include::Metadata),
        Some("None") => Ok(Include::None),
        Some("Object") => Ok(Include::Object),
        Some(other) => {
            Err(Status::bad_request(format!("includeObject={other}: must be None, Metadata or Object")))
        }
    }
}

/// One object at `now` in the form that the client wants.
pub(crate) fn object(
    resource: &Resource,
    code: u16,
    object: Object,
    accepted: Accepted,
    query: &Query,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let value = match accepted.shape {
        Shape::Plain => object.into_value(),
        Shape::Metadata => machinery::partial_metadata(resource, &object),
        Shape::Table => {
            let meta = json!({"resourceVersion": object.resource_version()});
            machinery::table(resource, &[object], &meta, include(query)?, now.as_second())
        }
    };
    accepted.encoding.answer(code, &value)
}

/// A list at `now` in the form that the client wants; in its plain form the stored bytes are copied.
pub(crate) fn list(
    resource: &Resource,
    listing: &Listing,
    accepted: Accepted,
    query: &Query,
    now: Timestamp,
) -> Result<Response<Body>, Status> {
    let mut meta = json!({"resourceVersion": listing.revision.to_string()});
    if let Some(token) = &listing.continues {
        meta["continue"] = json!(token);
    }
    if let Some(remaining) = listing.remaining {
        meta["remainingItemCount"] = json!(remaining);
    }
    if accepted.shape == Shape::Plain {
        let encoding = accepted.encoding;
        let body = match encoding {
            Encoding::Json => plain_list(resource, &meta, &listing.items),
            Encoding::Protobuf => protobuf_list(resource, &meta, listing.items.iter().map(|kv| load(kv)))?,
            Encoding::Yaml | Encoding::Cbor => {
                let json = plain_list(resource, &meta, &listing.items);
                encoding.encode(&serde_json::from_slice(&json).map_err(Status::internal)?)?
            }
        };
        return Ok(bytes(200, encoding.media_type(), body));
    }
    let objects: Vec<Object> = listing.items.iter().map(|kv| load(kv)).collect::<Result<_, _>>()?;
    let value = if accepted.shape == Shape::Table {
        machinery::table(resource, &objects, &meta, include(query)?, now.as_second())
    } else {
        let items: Vec<Value> =
            objects.iter().map(|object| machinery::partial_metadata(resource, object)).collect();
        // As upstream has it: no items are null here.
        let items = if items.is_empty() { Value::Null } else { Value::Array(items) };
        json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta, "items": items})
    };
    accepted.encoding.answer(200, &value)
}

fn plain_list(resource: &Resource, meta: &Value, items: &[Arc<KeyValue>]) -> Bytes {
    let size: usize = items.iter().map(|kv| kv.value.len() + objects::STAMP).sum();
    let mut body = Vec::with_capacity(size + 256);
    let head = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{meta},"items":["#,
        resource.list_kind(),
        resource.api_version()
    );
    body.extend_from_slice(head.as_bytes());
    put_list_items(&mut body, resource, items);
    body.extend_from_slice(b"]}");
    body.into()
}

/// The listing of objects that were read at `revision`.
pub(crate) fn listing_of(items: Vec<Arc<KeyValue>>, revision: Revision) -> Listing {
    Listing { revision, items, continues: None, remaining: None }
}
