//! What a path means.

use std::sync::Arc;

use api::Catalog;
use percent_encoding::percent_decode_str;

use super::status::Whose;
use crate::aggregation::{Remote, RequestInfo};
use crate::http::Target;

/// What a path names.
#[derive(Debug)]
pub(crate) enum Route<'a> {
    /// Objects.
    Objects(Target<'a>),
    /// Something that another server answers for.
    Remote(Arc<Remote>),
    /// What nodes and pods use: what is wanted of it.
    Usage(RequestInfo),
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/GROUP`
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`
    Resources { group: String, version: String },
    /// `/healthz`, `/livez`, `/readyz`, each maybe with the name of one check.
    Health { endpoint: String, check: String },
    /// `/metrics`
    Metrics,
    /// `/version`
    Version,
    /// `/openapi/v2`
    Swagger,
    /// `/openapi/v3` and the documents below it; the path within.
    OpenApi(String),
    /// `/holdfast/backup`
    Backup,
    /// `/holdfast/status`, and `/holdfast/status/host`: of all hosts, or of this one alone.
    Status(Whose),
    /// `/.well-known/openid-configuration`
    TokenIssuer,
    /// `/openid/v1/jwks`
    TokenKeys,
    /// A version that exists, but not that resource in it; or a version that doesn't: a `Status` answer.
    NoSuchResource,
    /// Nothing: a text answer.
    Nothing,
}

/// Reads a path.
pub(crate) fn route<'a>(path: &str, catalog: &'a Catalog) -> Route<'a> {
    let trimmed = path.strip_prefix('/').unwrap_or(path);
    let segments: Vec<&str> = trimmed.trim_end_matches('/').split('/').collect();
    match segments.as_slice() {
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["metrics"] => Route::Metrics,
        ["version"] => Route::Version,
        ["holdfast", "backup"] => Route::Backup,
        ["holdfast", "status"] => Route::Status(Whose::Cluster),
        ["holdfast", "status", "host"] => Route::Status(Whose::Host),
        [".well-known", "openid-configuration"] => Route::TokenIssuer,
        ["openid", "v1", "jwks"] => Route::TokenKeys,
        ["openapi", "v2"] => Route::Swagger,
        ["openapi", "v3", rest @ ..] => Route::OpenApi(rest.join("/")),
        [endpoint @ ("healthz" | "livez" | "readyz"), check @ ..] => {
            Route::Health { endpoint: (*endpoint).to_owned(), check: check.join("/") }
        }
        ["api", version] => Route::Resources { group: String::new(), version: (*version).to_owned() },
        ["apis", group] => Route::Group((*group).to_owned()),
        ["apis", group, version] => {
            Route::Resources { group: (*group).to_owned(), version: (*version).to_owned() }
        }
        ["api", version, rest @ ..] => objects(catalog, "", version, rest, path),
        ["apis", group, version, rest @ ..] => objects(catalog, group, version, rest, path),
        _ => Route::Nothing,
    }
}

fn objects<'a>(catalog: &'a Catalog, group: &str, version: &str, segments: &[&str], path: &str) -> Route<'a> {
    // A namespace's own subresources look like resources within it.
    let (namespace, inner) = match segments {
        ["namespaces", _, "status" | "finalize", ..] => ("", segments),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        all => ("", all),
    };
    let Some((plural, inner)) = inner.split_first() else { return Route::NoSuchResource };
    let Some(resource) = catalog.resource(group, version, plural) else { return Route::NoSuchResource };
    if resource.namespaced == namespace.is_empty() && !(resource.namespaced && inner.is_empty()) {
        return Route::NoSuchResource;
    }
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(|text| text.into_owned());
    let (name, subresource) =
        (inner.first().copied().unwrap_or_default(), inner.get(1).copied().unwrap_or_default());
    let (Ok(namespace), Ok(name), Ok(subresource)) =
        (decoded(namespace), decoded(name), decoded(subresource))
    else {
        return Route::NoSuchResource;
    };
    if [&namespace, &name, &subresource].into_iter().any(|part| part.contains('/')) {
        return Route::NoSuchResource;
    }
    let rest = if inner.len() > 1 { rest_behind(path, group, segments.len() - inner.len() + 2) } else { "" };
    if !rest.is_empty() && subresource != "proxy" {
        return Route::NoSuchResource;
    }
    Route::Objects(Target { resource, namespace, name, subresource, rest: rest.to_owned() })
}

/// What stands behind the first `count` segments that follow the version.
fn rest_behind<'a>(path: &'a str, group: &str, count: usize) -> &'a str {
    let skipped = count + if group.is_empty() { 2 } else { 3 };
    let slash = path.match_indices('/').nth(skipped).map(|(at, _)| at);
    slash.map_or("", |at| &path[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_objects_and_their_parts() {
        for (path, expected) in [
            ("/api/v1/pods", "pods ns= name= sub= rest="),
            ("/api/v1/namespaces/a/pods", "pods ns=a name= sub= rest="),
            ("/api/v1/namespaces/a/pods/p", "pods ns=a name=p sub= rest="),
            ("/api/v1/namespaces/a/pods/p/log", "pods ns=a name=p sub=log rest="),
            ("/api/v1/namespaces", "namespaces ns= name= sub= rest="),
            ("/api/v1/namespaces/a", "namespaces ns= name=a sub= rest="),
            ("/api/v1/namespaces/a/status", "namespaces ns= name=a sub=status rest="),
            ("/api/v1/namespaces/a/finalize", "namespaces ns= name=a sub=finalize rest="),
            ("/api/v1/nodes/n/status", "nodes ns= name=n sub=status rest="),
            ("/apis/apps/v1/namespaces/a/deployments/d/scale", "deployments ns=a name=d sub=scale rest="),
            ("/api/v1/namespaces/a/services/s:web/proxy", "services ns=a name=s:web sub=proxy rest="),
            ("/api/v1/namespaces/a/services/https:s:/proxy/", "services ns=a name=https:s: sub=proxy rest=/"),
            ("/api/v1/namespaces/a/pods/p/proxy/x%20y/z/", "pods ns=a name=p sub=proxy rest=/x%20y/z/"),
            ("/api/v1/nothings", "none"),
            ("/api/v1/namespaces/a/nodes/n", "none"),
            ("/api/v1/pods/p", "none"),
            ("/api/v1/namespaces/a/pods/p/log/more", "none"),
            ("/api/v1/namespaces/a/pods/..%2Fb", "none"),
        ] {
            let found = match route(path, &Catalog::default()) {
                Route::Objects(t) => format!(
                    "{} ns={} name={} sub={} rest={}",
                    t.resource.plural, t.namespace, t.name, t.subresource, t.rest
                ),
                _ => "none".to_owned(),
            };
            assert_eq!(found, expected, "{path}");
        }
        assert!(matches!(route("/nothing", &Catalog::default()), Route::Nothing));
        assert!(matches!(route("/apis/apps/v9", &Catalog::default()), Route::Resources { .. }));
        assert!(matches!(route("/readyz/ping", &Catalog::default()), Route::Health { .. }));
    }
}
