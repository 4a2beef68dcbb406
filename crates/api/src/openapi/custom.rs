//! The OpenAPI v3 documents of custom resources: made of their definitions' schemas when they are asked for.
//!
//! Follows `pkg/controller/openapi/builder` of apiextensions-apiserver.

use std::collections::BTreeSet;

use machinery::Resource;
use serde_json::{Map, Value, json};

use super::descriptions::Descriptions;
use super::operation::reference;
use super::{Document, META, openapi_hash};
use crate::catalog::Catalog;

/// The groups and versions of Kubernetes' Go client, by name (`k8s.io/client-go/kubernetes/scheme`): upstream's documents of custom
/// resources say of the options of a deletion that they are of all of these.
const OF_GO_CLIENT: [(&str, &[&str]); 22] = [
    ("", &["v1"]),
    ("admissionregistration.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("apps", &["v1", "v1beta1", "v1beta2"]),
    ("authentication.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("authorization.k8s.io", &["v1", "v1beta1"]),
    ("autoscaling", &["v1", "v2"]),
    ("batch", &["v1", "v1beta1"]),
    ("certificates.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("coordination.k8s.io", &["v1", "v1alpha2", "v1beta1"]),
    ("discovery.k8s.io", &["v1", "v1beta1"]),
    ("events.k8s.io", &["v1", "v1beta1"]),
    ("extensions", &["v1beta1"]),
    ("flowcontrol.apiserver.k8s.io", &["v1", "v1beta1", "v1beta2", "v1beta3"]),
    ("internal.apiserver.k8s.io", &["v1alpha1"]),
    ("networking.k8s.io", &["v1", "v1beta1"]),
    ("node.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("policy", &["v1", "v1beta1"]),
    ("rbac.authorization.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("resource.k8s.io", &["v1", "v1alpha3", "v1beta1", "v1beta2"]),
    ("scheduling.k8s.io", &["v1", "v1alpha2", "v1beta1"]),
    ("storage.k8s.io", &["v1", "v1alpha1", "v1beta1"]),
    ("storagemigration.k8s.io", &["v1beta1"]),
];

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
    let _held = Descriptions::get();
    let (group, version) = path.strip_prefix("apis/")?.split_once('/')?;
    let first = of_version(catalog, group, version).next()?;
    let (group, version) = (first.group, first.version);
    let paths = super::paths::of_version(group, version, of_version(catalog, group, version));
    let schemas = of_version(catalog, group, version).flat_map(|resource| {
        let of_list = (format!("{}List", resource.schema.name), list_schema(resource));
        [(resource.schema.name.to_owned(), schema(resource)), of_list]
    });
    let schemas = schemas.collect::<Map<_, _>>();
    let mut document = Document { path: path.to_owned(), paths, group, version }.with(schemas);
    document["info"] = json!({ "title": "Kubernetes CRD Swagger", "version": "v0.1.0" });
    if let Some(options) = document["components"]["schemas"].get_mut(format!("{META}.DeleteOptions")) {
        let all =
            OF_GO_CLIENT.iter().flat_map(|(group, versions)| versions.iter().map(move |v| (*group, *v)));
        let kinds = all
            .map(|(group, version)| json!({ "group": group, "kind": "DeleteOptions", "version": version }));
        options["x-kubernetes-group-version-kind"] = kinds.collect();
    }
    Some(document)
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
    unfold(&mut schema);
    add_embedded(&mut schema);
    if let Value::Object(properties) = &mut schema["properties"] {
        properties.extend(of_types());
        properties.insert("metadata".into(), metadata());
    }
    let kind = json!({ "group": resource.group, "kind": resource.kind, "version": resource.version });
    schema["x-kubernetes-group-version-kind"] = json!([kind]);
    add_selectable(resource, &mut schema);
    schema
}

/// Says by which fields objects can be selected.
fn add_selectable(resource: &Resource, schema: &mut Value) {
    let fields = resource.custom().into_iter().flat_map(|custom| custom.selectable_fields());
    let fields: Vec<Value> = fields.map(|field| json!({ "fieldPath": field })).collect();
    if !fields.is_empty() {
        schema["x-kubernetes-selectable-fields"] = fields.into();
    }
}

/// Says of what may be an integer or a text that it is one of both (upstream's `Unfold`).
fn unfold(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    for place in ["items", "additionalProperties"] {
        fields.get_mut(place).into_iter().for_each(unfold);
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(unfold);
    }
    let either = json!([{ "type": "integer" }, { "type": "string" }]);
    let is_said = fields.get("anyOf") == Some(&either)
        || fields.get("allOf").is_some_and(|parts| parts[0]["anyOf"] == either);
    if fields.get("x-kubernetes-int-or-string") != Some(&Value::Bool(true)) || is_said {
        return;
    }
    if !fields.contains_key("anyOf") {
        fields.insert("anyOf".into(), either);
        return;
    }
    if let Value::Array(parts) = fields.entry("allOf").or_insert_with(|| json!([])) {
        parts.insert(0, json!({ "anyOf": either }));
    }
}

/// The schema of a list of objects.
pub(crate) fn list_schema(resource: &Resource) -> Value {
    let kind = json!({
        "group": resource.group, "kind": resource.list_kind(), "version": resource.version,
    });
    let mut properties = of_types();
    let items = format!("List of {}. More info: {CONVENTIONS}", resource.plural);
    properties.insert(
        "items".into(),
        json!({ "description": items, "type": "array", "items": reference(resource.schema.name) }),
    );
    let metadata = json!({
        "description": format!("Standard list metadata. More info: {CONVENTIONS}#types-kinds"),
        "allOf": [reference(&format!("{META}.ListMeta"))],
    });
    properties.insert("metadata".into(), metadata);
    let mut schema = json!({
        "description": format!("{} is a list of {}", resource.list_kind(), resource.kind),
        "type": "object", "required": ["items"], "properties": properties,
        "x-kubernetes-group-version-kind": [kind],
    });
    add_selectable(resource, &mut schema);
    schema
}

const CONVENTIONS: &str =
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md";

/// The fields that say what an object is, as every kind describes them.
fn of_types() -> Map<String, Value> {
    let described = Descriptions::get().of("io.k8s.api.core.v1.Pod");
    let field = |name: &str| json!({ "description": described.get(name), "type": "string" });
    ["apiVersion", "kind"].into_iter().map(|name| (name.to_owned(), field(name))).collect()
}

fn metadata() -> Value {
    json!({
        "description": format!("Standard object's metadata. More info: {CONVENTIONS}#metadata"),
        "allOf": [reference(&format!("{META}.ObjectMeta"))],
    })
}

/// Objects within an object have what every object has, too (upstream's `addEmbeddedProperties`).
fn add_embedded(schema: &mut Value) {
    for places in ["properties", "items", "additionalProperties"] {
        match schema.get_mut(places) {
            Some(Value::Object(properties)) if places == "properties" => {
                properties.values_mut().for_each(add_embedded);
            }
            Some(below) => add_embedded(below),
            None => {}
        }
    }
    if schema.get("x-kubernetes-embedded-resource") != Some(&Value::Bool(true)) {
        return;
    }
    let fields = [
        ("apiVersion", "resources", "defines the versioned schema of this representation of an object."),
        ("kind", "types-kinds", "is a string value representing the type of this object. In CamelCase."),
    ];
    for (name, section, says) in fields {
        let description = format!("{name} {says} More info: {CONVENTIONS}#{section}");
        schema["properties"][name] = json!({ "description": description, "type": "string" });
    }
    schema["properties"]["metadata"] = metadata();
    if !schema["required"].is_array() {
        schema["required"] = json!([]);
    }
    if let Value::Array(required) = &mut schema["required"] {
        for name in ["kind", "apiVersion"] {
            if !required.contains(&json!(name)) {
                required.push(json!(name));
            }
        }
    }
}
