//! What a request for objects of an unknown resource wants, read from its path alone.
//!
//! Follows `k8s.io/apiserver/pkg/endpoints/request`.

use access::{Attributes, Wanted};
use http::Method;
use percent_encoding::percent_decode_str;

use crate::http::only_name;
use crate::http::query::Query;

/// What a path below a group and version names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    pub(crate) verb: &'static str,
    pub(crate) group: String,
    pub(crate) resource: String,
    pub(crate) subresource: String,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl RequestInfo {
    /// Reads what follows the version; nothing if nothing does.
    pub(crate) fn parse(group: &str, rest: &str, method: &Method, query: &Query) -> Option<Self> {
        // As the paths of this server's own objects are read: an empty segment within one counts.
        let rest = rest.trim_matches('/');
        if rest.is_empty() {
            return None;
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let segments: Vec<String> = rest.split('/').map(decoded).collect();
        let (namespace, inner) = match segments.as_slice() {
            [word, namespace, inner @ ..] if word == "namespaces" => {
                let own = inner.first().is_none_or(|next| next == "status" || next == "finalize");
                (namespace.clone(), if own { &segments[..] } else { inner })
            }
            all => (String::new(), all),
        };
        let part = |at: usize| inner.get(at).cloned().unwrap_or_default();
        let one = !part(1).is_empty();
        let verb = match *method {
            Method::GET | Method::HEAD if query.flag("watch") && part(2).is_empty() => "watch",
            Method::GET | Method::HEAD if one => "get",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if one => "delete",
            Method::DELETE => "deletecollection",
            _ => "",
        };
        let name = if one { part(1) } else { only_name(verb, query) };
        Some(RequestInfo {
            verb,
            group: group.to_owned(),
            resource: part(0),
            name,
            subresource: part(2),
            namespace,
        })
    }

    pub(crate) fn wanted<'a>(&'a self, query: &'a Query) -> Wanted<'a> {
        Wanted::Object(Attributes {
            verb: self.verb,
            group: &self.group,
            resource: &self.resource,
            subresource: &self.subresource,
            namespace: &self.namespace,
            name: &self.name,
            fields: query.get("fieldSelector").unwrap_or_default(),
        })
    }

    /// Whether it lasts for as long as its client wants.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(&*self.subresource, "attach" | "exec" | "log" | "portforward" | "proxy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_say_what_they_want() {
        let read = |method: Method, rest: &str, query: &str| {
            let info = RequestInfo::parse("g", rest, &method, &Query::parse(Some(query)))?;
            let RequestInfo { verb, resource, subresource, namespace, name, .. } = info;
            Some(format!("{verb} {resource} ns={namespace} name={name} sub={subresource}"))
        };
        for (method, rest, query, expected) in [
            (Method::GET, "/nodes", "", "list nodes ns= name= sub="),
            (Method::GET, "/nodes", "watch=true", "watch nodes ns= name= sub="),
            (Method::GET, "/nodes", "fieldSelector=metadata.name%3Dn1", "list nodes ns= name=n1 sub="),
            (Method::GET, "/nodes", "fieldSelector=metadata.name!%3Dn1", "list nodes ns= name= sub="),
            (
                Method::DELETE,
                "/nodes",
                "fieldSelector=metadata.name%3Dn1",
                "deletecollection nodes ns= name= sub=",
            ),
            (Method::GET, "/nodes/n%31", "", "get nodes ns= name=n1 sub="),
            (Method::GET, "/namespaces/a/pods", "", "list pods ns=a name= sub="),
            (Method::POST, "/namespaces/a/pods/p/eviction", "", "create pods ns=a name=p sub=eviction"),
            (Method::DELETE, "/namespaces/a/pods", "", "deletecollection pods ns=a name= sub="),
            (Method::DELETE, "/namespaces/a/pods/p", "", "delete pods ns=a name=p sub="),
            (Method::PUT, "/namespaces/a/status", "", "update namespaces ns=a name=a sub=status"),
            (Method::GET, "/namespaces/a", "", "get namespaces ns=a name=a sub="),
            (Method::GET, "/namespaces//secrets", "", "list secrets ns= name= sub="),
            (Method::DELETE, "/namespaces/a/pods//log", "", "deletecollection pods ns=a name= sub=log"),
            (Method::GET, "/namespaces/a/things/t/scale", "watch=1", "get things ns=a name=t sub=scale"),
        ] {
            assert_eq!(read(method, rest, query).as_deref(), Some(expected), "{rest}");
        }
        assert_eq!(read(Method::GET, "", ""), None);
        assert_eq!(read(Method::GET, "/", ""), None);
    }
}
