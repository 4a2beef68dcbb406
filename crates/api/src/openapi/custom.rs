//! The OpenAPI v3 documents of custom resources: made of their definitions' schemas when they are asked for.
//!
//! Follows `pkg/controller/openapi/builder` of apiextensions-apiserver.

use std::collections::BTreeSet;

use machinery::Resource;
use serde_json::{Map, Value, json};

use super::operation::reference;
use super::{Document, META, openapi_hash};
use crate::catalog::Catalog;

/// The paths of the documents.
pub(super) fn paths(catalog: &Catalog) -> Vec<String> {
    let versions: BTreeSet<(&str, &str)> = catalog.custom().map(|r| (r.group, r.version)).collect();
    versions.into_iter().map(|(group, version)| format!("apis/{group}/{version}")).collect()
}

/// The paths of the documents, each with what tells it from others.
pub(super) fn index(catalog: &Catalog) -> &[(String, String)] {
    catalog.openapi.get_or_init(|| {
        let hashed = paths(catalog).into_iter().filter_map(|path| {
            let hash = openapi_hash(document(catalog, &path)?.to_string().as_bytes());
            Some((path, hash))
        });
        hashed.collect()
    })
}

/// The document at `path`.
pub(super) fn document(catalog: &Catalog, path: &str) -> Option<Value> {
    let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
    let first = of_version(catalog, group, version).next()?;
    let (group, version) = (first.group, first.version);
    let paths = super::paths::of_version(group, version, of_version(catalog, group, version));
    let schemas = of_version(catalog, group, version).flat_map(|resource| {
        let of_list = (format!("{}List", resource.schema.name), list_schema(resource));
        [(resource.schema.name.to_owned(), schema(resource)), of_list]
    });
    let schemas = schemas.collect::<Map<_, _>>();
    Some(Document { path: path.to_owned(), paths, group, version }.with(schemas))
}

fn of_version<'a>(
    catalog: &'a Catalog,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a Resource> + Clone {
    catalog.custom().filter(move |r| r.group == group && r.version == version)
}

/// A definition's schema, with what every object has beside it.
pub(crate) fn schema(resource: &Resource) -> Value {
    let mut schema = resource.custom().map(|custom| custom.open_api_schema()).unwrap_or_default();
    if !schema.is_object() {
        schema = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    if let Value::Object(properties) = &mut schema["properties"] {
        properties.insert("apiVersion".into(), text(API_VERSION));
        properties.insert("kind".into(), text(KIND));
        let metadata = json!({
            "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
            "allOf": [reference(&format!("{META}.ObjectMeta"))],
        });
        properties.insert("metadata".into(), metadata);
    }
    let kind = json!({ "group": resource.group, "kind": resource.kind, "version": resource.version });
    schema["x-kubernetes-group-version-kind"] = json!([kind]);
    schema
}

/// The schema of a list of objects.
pub(crate) fn list_schema(resource: &Resource) -> Value {
    let kind = json!({
        "group": resource.group, "kind": resource.list_kind(), "version": resource.version,
    });
    json!({
        "description": format!("{} is a list of {}", resource.list_kind(), resource.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": text(API_VERSION), "kind": text(KIND),
            "items": {
                "description": format!("List of {}.", resource.plural),
                "type": "array", "items": reference(resource.schema.name),
            },
            "metadata": { "allOf": [reference(&format!("{META}.ListMeta"))] },
        },
        "x-kubernetes-group-version-kind": [kind],
    })
}

const API_VERSION: &str = "The group and version of the form in which the object is written. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "What the object is. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

fn text(description: &str) -> Value {
    json!({ "description": description, "type": "string" })
}
