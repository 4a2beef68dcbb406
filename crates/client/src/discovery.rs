//! Which resources the server has, and which of them somebody means.
//!
//! Asked in the aggregated form (KEP-3352: two requests for everything) where the server has it, else group by
//! group.

use crate::path::escaped;
use crate::{Client, Error};
use http::Method;
use serde_json::Value;

/// The plain form comes last: a server that doesn't know the aggregated one answers in that, instead of refusing.
const AGGREGATED: &str =
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";

/// One resource of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Its group, empty for the core.
    pub group: String,
    /// Its version.
    pub version: String,
    /// Its name in paths, such as `deployments`.
    pub plural: String,
    /// One of it, such as `deployment`.
    pub singular: String,
    /// Its kind, such as `Deployment`.
    pub kind: String,
    /// It lives in namespaces.
    pub namespaced: bool,
    /// Short names, such as `deploy`.
    pub short_names: Vec<String>,
    /// Groups of resources to which it belongs, such as `all`.
    pub categories: Vec<String>,
}

impl Resource {
    /// The path of the collection, or of one object.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if let Some(namespace) = namespace.filter(|_| self.namespaced) {
            path += &format!("/namespaces/{}", escaped(namespace));
        }
        path += &format!("/{}", self.plural);
        if let Some(name) = name {
            path += &format!("/{}", escaped(name));
        }
        path
    }

    /// `deployment.apps`, `pod`: what stands before the slash in kubectl's output.
    pub fn typed(&self) -> String {
        match self.group.as_str() {
            "" => self.kind.to_lowercase(),
            group => format!("{}.{group}", self.kind.to_lowercase()),
        }
    }

    /// The group and version as they stand in a manifest.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    fn is_called(&self, word: &str) -> bool {
        self.plural == word
            || self.singular == word
            || self.kind.to_lowercase() == word
            || self.short_names.iter().any(|n| n == word)
    }
}

/// The resources of a server, the preferred version of a group first.
#[derive(Debug, Clone, Default)]
pub struct Discovery {
    resources: Vec<Resource>,
}

impl Discovery {
    /// Asks the server.
    pub async fn ask(client: &Client) -> Result<Self, Error> {
        let mut resources = Vec::new();
        for root in ["/api", "/apis"] {
            let document = client.request(Method::GET, root, None, Some(AGGREGATED)).await?.json()?;
            if document.get("kind").and_then(Value::as_str) == Some("APIGroupDiscoveryList") {
                resources.extend(aggregated(&document));
                continue;
            }
            for (group, version, path) in versions(&document) {
                match client.get(&path).await {
                    Ok(list) => resources.extend(plain(&group, &version, &list)),
                    // One group whose server is away must not hide the others.
                    Err(Error::Server(_)) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Discovery { resources })
    }

    /// All resources.
    pub fn resources(&self) -> &[Resource] {
        &self.resources
    }

    /// The resources of a category, such as `all`.
    pub fn category(&self, name: &str) -> Vec<&Resource> {
        self.resources.iter().filter(|r| r.categories.iter().any(|c| c == name)).collect()
    }

    /// The resource that people mean by `pods`, `po`, `Pod`, `deployments.apps` or `deployments.v1.apps`.
    pub fn find(&self, word: &str) -> Result<&Resource, Error> {
        let lower = word.to_lowercase();
        if let Some(found) = self.resources.iter().find(|r| r.is_called(&lower)) {
            return Ok(found);
        }
        if let Some((name, rest)) = lower.split_once('.') {
            let named = self.resources.iter().filter(|r| r.is_called(name));
            let found =
                named.clone().find(|r| r.group == rest || format!("{}.{}", r.version, r.group) == rest);
            if let Some(found) =
                found.or_else(|| named.clone().find(|r| r.group.starts_with(&format!("{rest}."))))
            {
                return Ok(found);
            }
        }
        Err(Error::NoResource(word.to_owned()))
    }

    /// The resource of a manifest's `apiVersion` and `kind`.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Result<&Resource, Error> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let found =
            self.resources.iter().find(|r| r.group == group && r.version == version && r.kind == kind);
        found.ok_or_else(|| Error::NoKind { kind: kind.to_owned(), version: api_version.to_owned() })
    }
}

fn text(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let list = value.get(field).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
}

fn list<'a>(value: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> {
    value.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn aggregated(document: &Value) -> Vec<Resource> {
    let mut found = Vec::new();
    for item in list(document, "items") {
        let group = item.get("metadata").map(|m| text(m, "name")).unwrap_or_default();
        for version in list(item, "versions") {
            for resource in list(version, "resources") {
                let kind = resource.get("responseKind").map(|k| text(k, "kind")).unwrap_or_default();
                found.push(Resource {
                    group: group.clone(),
                    version: text(version, "version"),
                    plural: text(resource, "resource"),
                    singular: text(resource, "singularResource"),
                    kind,
                    namespaced: text(resource, "scope") == "Namespaced",
                    short_names: texts(resource, "shortNames"),
                    categories: texts(resource, "categories"),
                });
            }
        }
    }
    found
}

/// The groups and versions of an `APIVersions` or an `APIGroupList`, with the paths of their lists.
fn versions(document: &Value) -> Vec<(String, String, String)> {
    let core =
        texts(document, "versions").into_iter().map(|v| (String::new(), v.clone(), format!("/api/{v}")));
    let mut all: Vec<_> = core.collect();
    for group in list(document, "groups") {
        let name = text(group, "name");
        let preferred = group.get("preferredVersion").map(|v| text(v, "version")).unwrap_or_default();
        let mut versions: Vec<String> = list(group, "versions").map(|v| text(v, "version")).collect();
        versions.sort_by_key(|v| *v != preferred);
        all.extend(versions.into_iter().map(|v| (name.clone(), v.clone(), format!("/apis/{name}/{v}"))));
    }
    all
}

fn plain(group: &str, version: &str, document: &Value) -> Vec<Resource> {
    let whole = list(document, "resources").filter(|r| !text(r, "name").contains('/'));
    whole
        .map(|r| {
            let plural = text(r, "name");
            let singular = Some(text(r, "singularName")).filter(|s| !s.is_empty());
            Resource {
                group: group.to_owned(),
                version: version.to_owned(),
                singular: singular.unwrap_or_else(|| text(r, "kind").to_lowercase()),
                plural,
                kind: text(r, "kind"),
                namespaced: r.get("namespaced").and_then(Value::as_bool).unwrap_or(false),
                short_names: texts(r, "shortNames"),
                categories: texts(r, "categories"),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn both() -> [Discovery; 2] {
        let together = json!({"items": [
            {"metadata": {}, "versions": [{"version": "v1", "resources": [
                {"resource": "pods", "responseKind": {"kind": "Pod"}, "scope": "Namespaced",
                 "singularResource": "pod", "shortNames": ["po"], "categories": ["all"]},
                {"resource": "nodes", "responseKind": {"kind": "Node"}, "scope": "Cluster",
                 "singularResource": "node", "shortNames": ["no"]}]}]},
            {"metadata": {"name": "apps"}, "versions": [{"version": "v1", "resources": [
                {"resource": "deployments", "responseKind": {"kind": "Deployment"}, "scope": "Namespaced",
                 "singularResource": "deployment", "shortNames": ["deploy"], "categories": ["all"]}]}]}]});
        let core = json!({"resources": [
            {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": true, "shortNames": ["po"],
             "categories": ["all"]},
            {"name": "pods/log", "kind": "Pod", "namespaced": true},
            {"name": "nodes", "singularName": "", "kind": "Node", "namespaced": false, "shortNames": ["no"]}]});
        let apps = json!({"resources": [{"name": "deployments", "singularName": "deployment",
            "kind": "Deployment", "namespaced": true, "shortNames": ["deploy"], "categories": ["all"]}]});
        let mut one_by_one = plain("", "v1", &core);
        one_by_one.extend(plain("apps", "v1", &apps));
        [Discovery { resources: aggregated(&together) }, Discovery { resources: one_by_one }]
    }

    #[test]
    fn both_forms_say_the_same() {
        let [together, one_by_one] = both();
        assert_eq!(together.resources, one_by_one.resources);
        assert_eq!(together.category("all").len(), 2);
    }

    #[test]
    fn finds_what_people_mean() {
        let [discovery, _] = both();
        for (word, plural) in [
            ("pods", Some("pods")),
            ("po", Some("pods")),
            ("Pod", Some("pods")),
            ("deploy", Some("deployments")),
            ("deployments.apps", Some("deployments")),
            ("deployment.v1.apps", Some("deployments")),
            ("deployments.batch", None),
            ("foo", None),
            ("", None),
            (".", None),
        ] {
            assert_eq!(discovery.find(word).ok().map(|r| r.plural.as_str()), plural, "{word}");
        }
        assert!(discovery.of_kind("apps/v1", "Deployment").is_ok());
        let error = discovery.of_kind("apps/v2", "Deployment").unwrap_err().to_string();
        assert!(error.starts_with("no matches for kind \"Deployment\" in version \"apps/v2\""), "{error}");
    }

    #[test]
    fn paths() {
        let [discovery, _] = both();
        let pods = discovery.find("pods").unwrap();
        let nodes = discovery.find("nodes").unwrap();
        let deployments = discovery.find("deploy").unwrap();
        assert_eq!(pods.path(Some("a"), Some("b/../c")), "/api/v1/namespaces/a/pods/b%2F..%2Fc");
        assert_eq!(pods.path(None, None), "/api/v1/pods");
        assert_eq!(nodes.path(Some("a"), Some("n1")), "/api/v1/nodes/n1");
        assert_eq!(deployments.path(Some("a"), None), "/apis/apps/v1/namespaces/a/deployments");
        assert_eq!(deployments.typed(), "deployment.apps");
    }

    #[test]
    fn versions_of_groups_preferred_first() {
        let groups = json!({"groups": [{"name": "g", "preferredVersion": {"version": "v2"},
            "versions": [{"version": "v1"}, {"version": "v2"}]}]});
        let paths: Vec<_> = versions(&groups).into_iter().map(|v| v.2).collect();
        assert_eq!(paths, ["/apis/g/v2", "/apis/g/v1"]);
        assert_eq!(versions(&json!({"versions": ["v1"]}))[0].2, "/api/v1");
    }
}
