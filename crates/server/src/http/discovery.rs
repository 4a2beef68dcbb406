//! Discovery: versions, groups, resources, and the version of the server.

use std::net::SocketAddr;

use api::Status;
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};

use super::Body;
use super::negotiate::wants_aggregated_discovery;
use super::response::{bytes, error, json as json_answer, no_such_path};

const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// `/api` and `/apis`.
pub(crate) fn root(core: bool, headers: &HeaderMap, address: Option<SocketAddr>) -> Response<Body> {
    let mut response = match wants_aggregated_discovery(headers) {
        Err(status) => return error(&status),
        Ok(true) => bytes(200, AGGREGATED, api::discovery_aggregated(core).to_string()),
        Ok(false) if core => {
            let address = address.map(|address| address.to_string()).unwrap_or_default();
            json_answer(200, &api::discovery_api_versions(&address))
        }
        Ok(false) => json_answer(200, &api::discovery_groups()),
    };
    response.headers_mut().insert(http::header::VARY, HeaderValue::from_static("Accept"));
    response
}

/// `/apis/GROUP`
pub(crate) fn group(group: &str) -> Response<Body> {
    api::discovery_group(group).map_or_else(no_such_path, |value| json_answer(200, &value))
}

/// `/api/v1`, `/apis/GROUP/VERSION`
pub(crate) fn resources(group: &str, version: &str) -> Response<Body> {
    api::discovery_resources(group, version)
        .map_or_else(|| error(&no_such_resource()), |value| json_answer(200, &value))
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
