//! What a request is about, read from its method and address alone, as upstream does: so that what isn't served, isn't
//! allowed or comes from nobody is recorded in the same form as all else.

use access::UserInfo;
use audit::{About, Asked, ObjectReference};
use http::Request;

use crate::aggregation::RequestInfo;
use crate::http::Body;
use crate::http::query::Query;

/// What a request is about.
pub(super) struct Attributes {
    verb: String,
    path: String,
    /// Of what is about objects.
    objects: Option<(RequestInfo, String)>,
}

impl Attributes {
    pub(super) fn of(request: &Request<Body>) -> Self {
        let (method, path) = (request.method(), request.uri().path());
        let objects = parts(path).and_then(|(group, version, rest)| {
            let query = Query::parse(request.uri().query());
            Some((RequestInfo::parse(group, rest, method, &query)?, version.to_owned()))
        });
        let verb = match &objects {
            Some((info, _)) if !info.verb.is_empty() => info.verb.to_owned(),
            _ => method.as_str().to_ascii_lowercase(),
        };
        Attributes { verb, path: path.to_owned(), objects }
    }

    pub(super) fn verb(&self) -> &str {
        &self.verb
    }

    pub(super) fn asked<'a>(&'a self, who: Option<&'a UserInfo>) -> Asked<'a> {
        let about = match &self.objects {
            Some((info, _)) => About::Objects {
                group: &info.group,
                resource: &info.resource,
                subresource: &info.subresource,
                namespace: &info.namespace,
                name: &info.name,
            },
            None => About::Path(&self.path),
        };
        Asked {
            user: who.map(|who| who.user.as_str()),
            groups: who.map_or(&[][..], |who| who.groups.as_slice()),
            verb: &self.verb,
            about,
        }
    }

    pub(super) fn reference(&self) -> Option<ObjectReference> {
        let (info, version) = self.objects.as_ref()?;
        Some(ObjectReference {
            resource: info.resource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            api_group: info.group.clone(),
            api_version: version.clone(),
            subresource: info.subresource.clone(),
            ..ObjectReference::default()
        })
    }

    /// Whether its answer goes on for as long as its client wants.
    pub(super) fn is_long_running(&self) -> bool {
        self.objects.as_ref().is_some_and(|(info, _)| info.is_long_running())
    }

    /// Whether objects are sent or answered, from beginning to end.
    pub(super) fn carries_objects(&self) -> bool {
        self.objects.is_some() && !self.is_long_running()
    }
}

/// Group and version of a path to objects, and the rest of it.
fn parts(path: &str) -> Option<(&str, &str, &str)> {
    let (group, rest) = match path.strip_prefix("/api/") {
        Some(rest) => ("", rest),
        None => path.strip_prefix("/apis/")?.split_once('/')?,
    };
    let (version, rest) = rest.split_once('/')?;
    Some((group, version, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response::full;

    #[test]
    fn a_path_says_what_it_is_about() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/pods/p", "get core/v1 pods a p -"),
            ("GET", "/api/v1/pods?watch=1", "watch core/v1 pods - - - long"),
            ("POST", "/api/v1/namespaces/a/pods/p/exec?command=ls", "create core/v1 pods a p exec long"),
            (
                "DELETE",
                "/apis/apps/v1/namespaces/a/deployments",
                "deletecollection apps/v1 deployments a - -",
            ),
            (
                "PATCH",
                "/apis/apps/v1/namespaces/a/deployments/d/scale",
                "patch apps/v1 deployments a d scale",
            ),
            ("GET", "/api/v1/namespaces//secrets", "list core/v1 secrets - - -"),
            ("GET", "/apis/no.such/v3/things", "list no.such/v3 things - - -"),
            ("TRACE", "/api/v1/nodes/n1", "trace core/v1 nodes - n1 -"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/apis/apps/v1/", "get /apis/apps/v1/"),
            ("HEAD", "/readyz", "head /readyz"),
        ] {
            let request = Request::builder().method(method).uri(uri).body(full("")).unwrap();
            let attributes = Attributes::of(&request);
            let told = match attributes.reference() {
                Some(of) => {
                    let or = |text: &str, other: &str| {
                        if text.is_empty() { other.to_owned() } else { text.to_owned() }
                    };
                    let long = if attributes.is_long_running() { " long" } else { "" };
                    format!(
                        "{} {}/{} {} {} {} {}{long}",
                        attributes.verb(),
                        or(&of.api_group, "core"),
                        of.api_version,
                        of.resource,
                        or(&of.namespace, "-"),
                        or(&of.name, "-"),
                        or(&of.subresource, "-")
                    )
                }
                None => format!("{} {}", attributes.verb(), attributes.path),
            };
            assert_eq!(told, expected, "{method} {uri}");
        }
    }
}
