//! A request for objects, as far as it is understood.

use access::UserInfo;
use machinery::{FieldSelector, Resource};

use super::Connection;
use super::query::Query;

/// A path to objects of one resource.
#[derive(Debug)]
pub(crate) struct Target<'a> {
    pub(crate) resource: &'a Resource,
    /// Empty for all namespaces and for cluster-scoped resources.
    pub(crate) namespace: String,
    /// Empty for all objects.
    pub(crate) name: String,
    /// Empty for the object itself.
    pub(crate) subresource: String,
    /// The rest behind a subresource, still encoded, with its leading slash: where a proxy leads.
    pub(crate) rest: String,
}

/// A request for objects as far as it is understood.
pub(crate) struct Asked<'a> {
    pub(crate) who: &'a UserInfo,
    pub(crate) target: &'a Target<'a>,
    pub(crate) query: &'a Query,
    pub(crate) verb: &'static str,
    /// The connection that it came on, if it came on one.
    pub(crate) connection: Option<&'a Connection>,
}

/// The name that a list or a watch requires: it is authorized as one of that object alone. What deletes a collection is
/// never authorized by a name, as upstream.
pub(crate) fn only_name(verb: &str, query: &Query) -> String {
    let fields = query.get("fieldSelector").filter(|_| matches!(verb, "list" | "watch"));
    let name = fields.and_then(|fields| FieldSelector::required(fields, "metadata.name"));
    let is_name = |name: &String| !matches!(name.as_str(), "." | "..") && !name.contains(['/', '%']);
    name.filter(is_name).unwrap_or_default()
}
