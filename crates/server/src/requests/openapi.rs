//! `/openapi/v2` and `/openapi/v3`: JSON and protobuf, with tags and hashes so that clients may keep what they have.
//!
//! Follows `k8s.io/kube-openapi/pkg/handler` and `handler3`.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use access::UserInfo;
use api::Catalog;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use jiff::{SignedDuration, Timestamp};
use machinery::Status;
use serde_json::Value;
use tracing::info_span;

use crate::aggregation::Aggregation;
use crate::http::Body;
use crate::http::compress::{compress, compressed, takes_gzip};
use crate::http::encoding::Encoding;
use crate::http::negotiate::{accepted_media_type, not_acceptable};
use crate::http::query::Query;
use crate::http::response::{JSON, bytes, full, no_such_path};
use crate::registry::Registry;

const V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// The same as older clients ask for it, with a sign that no media type may have.
const OLD_V2: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OLD_V3: &str = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";

/// How long the server of an aggregated API may take for its document. The other servers' documents wait for
/// it, and client-go gives up after 32 seconds.
const LONGEST: Duration = Duration::from_secs(10);

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Json,
    Protobuf,
}

fn form(headers: &HeaderMap, protobuf: [&str; 2]) -> Result<Form, Status> {
    match accepted_media_type(headers, &[JSON, protobuf[0], protobuf[1]]) {
        Some(JSON) => Ok(Form::Json),
        Some(_) => Ok(Form::Protobuf),
        None => Err(not_acceptable(&[Encoding::Json])),
    }
}

/// The OpenAPI v2 documents once somebody asked for them, compressed: with all that goes into them they are large.
type Swaggers = Mutex<[Option<Arc<Swagger>>; 2]>;

/// The documents of what is served, here and by others.
pub(super) struct OpenApi {
    registry: Arc<Registry>,
    aggregation: Arc<Aggregation>,
    swaggers: Swaggers,
}

#[derive(Debug)]
struct Swagger {
    /// What it describes.
    catalog: Arc<Catalog>,
    tag: HeaderValue,
    gzip: Bytes,
    /// Where the documents of aggregated APIs are that went into it.
    addresses: Vec<String>,
}

impl OpenApi {
    pub(super) fn new(registry: Arc<Registry>, aggregation: Arc<Aggregation>) -> Self {
        OpenApi { registry, aggregation, swaggers: Mutex::default() }
    }

    async fn swagger(&self, form: Form) -> Result<Arc<Swagger>, Status> {
        let place = form as usize;
        let known = self.swaggers.lock().unwrap_or_else(PoisonError::into_inner)[place].clone();
        let catalog = self.registry.catalog();
        let remotes = self.aggregation.remote_openapi();
        let addresses: Vec<String> = remotes.iter().map(|(_, url)| url.clone()).collect();
        let is_same =
            |known: &Arc<Swagger>| known.addresses == addresses && Arc::ptr_eq(&known.catalog, &catalog);
        if let Some(known) = known.filter(is_same) {
            return Ok(known);
        }
        let mut others = Vec::new();
        for (remote, url) in &remotes {
            others.extend(self.aggregation.fetch_openapi(remote, url).await);
        }
        let make = move || {
            let documents = api::openapi_v3_documents(&catalog).chain(others);
            let document = match form {
                Form::Json => api::openapi_v2(documents).into_bytes(),
                Form::Protobuf => api::openapi_v2_protobuf(documents),
            };
            let tag = tag(&document);
            compress(&document)
                .map(|gzip| Arc::new(Swagger { catalog: catalog.clone(), tag, gzip: gzip.into(), addresses }))
        };
        let made = tasks::blocking(info_span!("OpenAPI document"), make).await.map_err(Status::internal)?;
        let made = made.map_err(Status::internal)?;
        self.swaggers.lock().unwrap_or_else(PoisonError::into_inner)[place] = Some(made.clone());
        Ok(made)
    }

    /// `/openapi/v2`
    pub(super) async fn v2(&self, headers: &HeaderMap) -> Result<Response<Body>, Status> {
        let form = form(headers, [V2, OLD_V2])?;
        let swagger = self.swagger(form).await?;
        let mut response = if holds(headers, &swagger.tag) {
            not_modified()
        } else if takes_gzip(headers) {
            let mut response = Response::new(full(swagger.gzip.clone()));
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            response
        } else {
            let mut plain = Vec::new();
            GzDecoder::new(&swagger.gzip[..]).read_to_end(&mut plain).map_err(Status::internal)?;
            Response::new(full(plain))
        };
        let kind = if form == Form::Json { JSON } else { V2 };
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response.headers_mut().insert(VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
        response.headers_mut().insert(ETAG, swagger.tag.clone());
        Ok(response)
    }

    /// `/openapi/v3` and below.
    pub(super) async fn v3(
        &self,
        path: &str,
        who: &UserInfo,
        query: &Query,
        request: &http::request::Parts,
    ) -> Result<Response<Body>, Status> {
        if let Some((remote, "")) = self.aggregation.remote(&format!("/{path}")) {
            let request = Request::from_parts(request.clone(), full(""));
            return self.aggregation.forward(&remote, who, request, Some(LONGEST)).await;
        }
        let headers = &request.headers;
        let (document, form) = if path.is_empty() {
            accepted_media_type(headers, &[JSON]).ok_or_else(|| not_acceptable(&[Encoding::Json]))?;
            let mut index = api::openapi_v3_index(&self.registry.catalog());
            self.aggregation.add_remote_openapi(&mut index);
            (index.to_string(), Form::Json)
        } else {
            let form = form(headers, [V3, OLD_V3])?;
            match api::openapi_v3(&self.registry.catalog(), path) {
                Some(document) => (document, form),
                None => return Ok(no_such_path()),
            }
        };
        let hash = api::openapi_hash(document.as_bytes());
        let asked = query.get("hash");
        if asked.is_some_and(|asked| asked != hash) {
            return Ok(moved(&format!("/openapi/v3/{path}?hash={hash}")));
        }
        let tag = HeaderValue::from_str(&format!("\"{hash}\"")).map_err(Status::internal)?;
        let mut response = if holds(headers, &tag) {
            not_modified()
        } else {
            let answer = match form {
                Form::Json => bytes(200, JSON, document),
                Form::Protobuf => {
                    let value: Value = serde_json::from_str(&document).map_err(Status::internal)?;
                    bytes(200, V3, api::openapi_v3_protobuf(&value))
                }
            };
            if takes_gzip(headers) { compressed(answer).await } else { answer }
        };
        let kept = response.headers_mut();
        kept.append(VARY, HeaderValue::from_static("Accept"));
        kept.insert(ETAG, tag);
        // What has its hash in its address never changes.
        if asked.is_some() {
            kept.insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
            let expires =
                HeaderValue::from_str(&in_a_year(self.registry.edge().second())).map_err(Status::internal)?;
            kept.insert(EXPIRES, expires);
        }
        Ok(response)
    }
}

/// A moment a year ahead, as HTTP writes it.
fn in_a_year(now: Timestamp) -> String {
    let then = now.saturating_add(SignedDuration::from_hours(365 * 24)).unwrap_or(Timestamp::MAX);
    then.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

pub(super) fn tag(document: &[u8]) -> HeaderValue {
    let tag = format!("\"{}\"", api::openapi_hash(document));
    HeaderValue::from_str(&tag).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Whether a client has the document of that tag already.
pub(super) fn holds(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    let held = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut held = held.flat_map(|value| value.split(',')).map(str::trim);
    held.any(|held| held == "*" || held.strip_prefix("W/").unwrap_or(held).as_bytes() == tag.as_bytes())
}

pub(super) fn not_modified() -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::NOT_MODIFIED;
    response
}

fn moved(to: &str) -> Response<Body> {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(to) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}
