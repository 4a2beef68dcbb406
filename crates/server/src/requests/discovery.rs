//! Discovery: versions, groups, resources, and the version of the server.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Response};
use machinery::Status;
use serde_json::{Value, json};

use super::openapi::{holds, not_modified, tag};
use crate::aggregation::{Aggregation, add_discovered, add_group, discovered};
use crate::http::Body;
use crate::http::negotiate::wants_aggregated_discovery;
use crate::http::response::{bytes, error, json as json_answer, no_such_path};
use crate::registry::Registry;
use crate::usage;

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// What is served, here and by others.
pub(super) struct Discovery<'a> {
    pub(super) registry: &'a Registry,
    pub(super) aggregation: &'a Aggregation,
    /// Where the server listens.
    pub(super) address: Option<SocketAddr>,
}

impl Discovery<'_> {
    /// `/api` and `/apis`.
    pub(super) fn root(&self, core: bool, headers: &HeaderMap) -> Response<Body> {
        let mut response = match wants_aggregated_discovery(headers) {
            Err(status) => return error(&status),
            Ok(true) => {
                let mut list = api::discovery_aggregated(&self.registry.catalog(), core);
                if !core {
                    self.aggregation.add_remote_discovery(&mut list);
                    if self.shows_usage() {
                        let resources = usage::resources();
                        let version = discovered(usage::VERSION, Some(&resources["resources"]), true);
                        add_discovered(&mut list, usage::GROUP, version);
                    }
                }
                tagged(headers, list.to_string())
            }
            Ok(false) if core => {
                let address = self.address.map(|address| address.to_string()).unwrap_or_default();
                json_answer(200, &api::discovery_api_versions(&address))
            }
            Ok(false) => json_answer(200, &self.groups()),
        };
        response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
        response
    }

    fn groups(&self) -> Value {
        let mut groups = api::discovery_groups(&self.registry.catalog());
        self.aggregation.add_remote_groups(&mut groups);
        if self.shows_usage() {
            add_group(&mut groups, usage::GROUP, usage::VERSION);
        }
        groups
    }

    /// Whether this server itself serves what nodes and pods use: no other server does.
    fn shows_usage(&self) -> bool {
        self.aggregation.remote(&format!("/apis/{}/{}", usage::GROUP, usage::VERSION)).is_none()
    }

    /// `/apis/GROUP`
    pub(super) fn group(&self, group: &str) -> Response<Body> {
        let mut groups = self.groups();
        let found =
            groups["groups"].as_array_mut().and_then(|all| all.iter_mut().find(|g| g["name"] == *group));
        let Some(Value::Object(entry)) = found.map(Value::take) else { return no_such_path() };
        let mut answer = json!({"kind": "APIGroup", "apiVersion": "v1"});
        if let Value::Object(answer) = &mut answer {
            answer.extend(entry);
        }
        json_answer(200, &answer)
    }

    /// `/api/v1`, `/apis/GROUP/VERSION`
    pub(super) fn resources(&self, group: &str, version: &str) -> Response<Body> {
        if (group, version) == (usage::GROUP, usage::VERSION) {
            return json_answer(200, &usage::resources());
        }
        api::discovery_resources(&self.registry.catalog(), group, version)
            .map_or_else(|| error(&no_such_resource()), |value| json_answer(200, &value))
    }
}

/// Aggregated discovery with its tag, or nothing for a client that has it already.
fn tagged(headers: &HeaderMap, list: String) -> Response<Body> {
    let tag = tag(list.as_bytes());
    let mut response = if holds(headers, &tag) { not_modified() } else { bytes(200, AGGREGATED, list) };
    response.headers_mut().insert(http::header::ETAG, tag);
    response
}

/// `/version`: the version of Kubernetes whose API this is, and that this is Holdfast.
pub(crate) fn version() -> Value {
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": "1", "minor": "36",
        "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.2+holdfast-", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}

/// 404 for a resource that isn't served.
pub(crate) fn no_such_resource() -> Status {
    Status::new(404, "NotFound", "the server could not find the requested resource").about("", "", "")
}
