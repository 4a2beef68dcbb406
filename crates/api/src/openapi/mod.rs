//! The OpenAPI documents, as `kubectl` reads them for `explain`, `apply` and `diff`: made from the table of
//! resources and the published schemas when they are asked for. That of v2 is made out of those of v3.

mod custom;
mod descriptions;
mod operation;
mod paths;
mod protobuf;
mod swagger;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::OnceLock;

use machinery::Resource;
use serde_json::{Map, Value, json};

use self::descriptions::Descriptions;
use crate::catalog::Catalog;
use crate::kinds::resources;
use crate::schemas::schemas;

/// What the schemas of meta/v1 begin with.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const REFERENCE: &str = "#/components/schemas/";

/// A document and where it is.
struct Document {
    /// The path below `/openapi/v3/`, such as `apis/apps/v1`.
    path: String,
    paths: Value,
    group: &'static str,
    version: &'static str,
}

/// What `GET /openapi/v3` answers: where each document is, with a hash so that clients may keep it.
pub fn openapi_v3_index(catalog: &Catalog) -> Value {
    static INDEX: OnceLock<Map<String, Value>> = OnceLock::new();
    // Held, so that all documents are made with the same.
    let _held = Descriptions::get();
    let index = INDEX.get_or_init(|| {
        let entries = documents().map(|document| {
            let hash = openapi_hash(document.value().to_string().as_bytes());
            entry(document.path, &hash)
        });
        entries.collect::<Map<_, _>>()
    });
    let mut index = index.clone();
    index.extend(custom::index(catalog).iter().map(|(path, hash)| entry(path.clone(), hash)));
    json!({ "paths": index })
}

fn entry(path: String, hash: &str) -> (String, Value) {
    let url = format!("/openapi/v3/{path}?hash={hash}");
    (path, json!({ "serverRelativeURL": url }))
}

/// The document at `path`, such as `api/v1` or `apis/apps/v1`.
pub fn openapi_v3(catalog: &Catalog, path: &str) -> Option<String> {
    let document = documents().find(|document| document.path == path).map(|document| document.value());
    document.or_else(|| custom::document(catalog, path)).map(|document| document.to_string())
}

/// What tells one document from another one, for clients that keep them.
pub fn openapi_hash(document: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    document.hash(&mut hasher);
    format!("{:016X}", hasher.finish())
}

/// All documents, one after the other.
pub fn openapi_v3_documents(catalog: &Catalog) -> impl Iterator<Item = Value> {
    let held = Descriptions::get();
    let custom = custom::paths(catalog).into_iter().filter_map(|path| custom::document(catalog, &path));
    let all = documents().map(|document| document.value()).chain(custom);
    all.inspect(move |_| _ = &held)
}

/// A document as protobuf: gnostic's `openapi.v3.Document`.
pub fn openapi_v3_protobuf(document: &Value) -> Vec<u8> {
    document.as_object().map(protobuf::document).unwrap_or_default()
}

/// The OpenAPI v2 document of everything that v3 documents tell, as JSON.
pub fn openapi_v2(documents: impl Iterator<Item = Value>) -> String {
    swagger::Swagger::json(documents)
}

/// The OpenAPI v2 document of everything that v3 documents tell, as protobuf: gnostic's `openapi.v2.Document`.
pub fn openapi_v2_protobuf(documents: impl Iterator<Item = Value>) -> Vec<u8> {
    protobuf::swagger(documents)
}

fn documents() -> impl Iterator<Item = Document> {
    let roots =
        paths::roots().into_iter().map(|(path, paths)| Document { path, paths, group: "", version: "" });
    let mut versions: Vec<(&str, &str)> = resources().map(|r| (r.group, r.version)).collect();
    versions.dedup();
    roots.chain(versions.into_iter().map(|(group, version)| {
        let prefix = if group.is_empty() { "api".to_owned() } else { format!("apis/{group}") };
        let of_version = resources().filter(move |r| r.group == group && r.version == version);
        let paths = paths::of_version(group, version, of_version);
        Document { path: format!("{prefix}/{version}"), paths, group, version }
    }))
}

impl Document {
    /// The document: its paths, and the schemas that these lead to.
    fn value(&self) -> Value {
        self.with(Map::new())
    }

    /// Likewise, where some of the schemas are these.
    fn with(&self, mut components: Map<String, Value>) -> Value {
        let mut reached = BTreeSet::new();
        let descriptions = Descriptions::get();
        for schema in components.clone().values() {
            add_schemas(schema, &descriptions, &mut reached, &mut components);
        }
        add_schemas(&self.paths, &descriptions, &mut reached, &mut components);
        for kind in ["DeleteOptions", "WatchEvent"] {
            let kinds = components.get_mut(&format!("{META}.{kind}"));
            let kinds = kinds.and_then(|schema| schema.get_mut("x-kubernetes-group-version-kind"));
            if let Some(Value::Array(kinds)) = kinds
                && !self.group.is_empty()
            {
                kinds.push(json!({ "group": self.group, "kind": kind, "version": self.version }));
            }
        }
        let mut of_all = Map::new();
        if !components.is_empty() {
            of_all.insert("schemas".into(), components.into());
        }
        let token = json!({ "in": "header", "name": "authorization", "type": "apiKey" });
        of_all.insert("securitySchemes".into(), json!({ "BearerToken": token }));
        json!({
            "components": of_all, "info": { "title": "Kubernetes", "version": "v1.36.2" }, "openapi": "3.0.0",
            "paths": self.paths,
        })
    }
}

/// Adds the schemas that `value` names, and those that they name.
fn add_schemas(
    value: &Value,
    descriptions: &Descriptions,
    reached: &mut BTreeSet<String>,
    components: &mut Map<String, Value>,
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = value.as_str().filter(|_| key == "$ref").and_then(|r| r.strip_prefix(REFERENCE));
                let Some(name) = name else {
                    add_schemas(value, descriptions, reached, components);
                    continue;
                };
                if reached.insert(name.to_owned())
                    && let Some(mut schema) = schemas().published(name)
                {
                    add_schemas(&schema, descriptions, reached, components);
                    descriptions.describe(name, &mut schema);
                    components.insert(name.to_owned(), schema);
                }
            }
        }
        Value::Array(list) => {
            list.iter().for_each(|value| add_schemas(value, descriptions, reached, components));
        }
        _ => {}
    }
}

/// The name of the schema of a subresource's bodies.
fn schema_of(resource: &Resource, sub: &machinery::Subresource) -> String {
    if sub.version.is_empty() && sub.kind == resource.kind {
        return resource.schema.name.to_owned();
    }
    let (group, version) =
        if sub.version.is_empty() { (resource.group, resource.version) } else { (sub.group, sub.version) };
    let group = group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{version}.{}", sub.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_group_and_version_has_a_document_with_its_kinds() {
        let index = openapi_v3_index(&Catalog::default());
        for resource in resources() {
            let prefix = if resource.group.is_empty() { "api/" } else { "apis/" };
            let path = format!("{prefix}{}", resource.api_version());
            assert!(index["paths"][&path]["serverRelativeURL"].is_string(), "{path}");
            let document: Value =
                serde_json::from_str(&openapi_v3(&Catalog::default(), &path).unwrap()).unwrap();
            let kinds =
                &document["components"]["schemas"][resource.schema.name]["x-kubernetes-group-version-kind"];
            assert_eq!(kinds[0]["kind"], resource.kind);
            if !resource.has_verb("patch") {
                continue;
            }
            let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let one = &document["paths"][format!("/{path}{scope}/{}/{{name}}", resource.plural)];
            assert_eq!(one["patch"]["x-kubernetes-group-version-kind"]["kind"], resource.kind);
        }
    }
}
