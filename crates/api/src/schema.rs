//! The published schemas in a compact form, read once from the OpenAPI documents inside the program.

use std::collections::{BTreeMap, HashMap};
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::openapi::DOCUMENTS;

/// What a field's value looks like.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Shape {
    Text,
    Int32,
    Int64,
    Number,
    Boolean,
    /// Base64.
    Bytes,
    Time,
    MicroTime,
    Quantity,
    IntOrString,
    /// Anything.
    Any,
    /// An object of the schema of that number.
    Object(usize),
    List(Box<Shape>),
    Map(Box<Shape>),
}

/// How a strategic merge patch treats a field.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct PatchStrategy {
    /// Lists are merged by `merge_key`, or as sets where there is none.
    pub merge: bool,
    /// Fields that the patch doesn't name in `$retainKeys` go.
    pub retain_keys: bool,
    pub merge_key: Option<&'static str>,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub name: &'static str,
    pub shape: Shape,
    pub required: bool,
    pub default: Option<Value>,
    pub choices: Box<[&'static str]>,
    pub patch: PatchStrategy,
}

/// The fields of one schema, by name.
#[derive(Debug)]
pub(crate) struct Schema {
    pub name: &'static str,
    fields: Box<[Field]>,
}

impl Schema {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// All schemas.
#[derive(Debug)]
pub(crate) struct Schemas {
    numbers: HashMap<&'static str, usize>,
    list: Vec<Schema>,
}

impl Schemas {
    /// The schema of that name.
    pub fn named(&self, name: &str) -> Option<&Schema> {
        self.list.get(*self.numbers.get(name)?)
    }

    /// The schema of that number: what [`Shape::Object`] holds.
    pub fn numbered(&self, number: usize) -> &Schema {
        &self.list[number]
    }
}

/// The schemas of everything that is served.
pub(crate) fn schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let mut all = BTreeMap::new();
        for (_, document) in DOCUMENTS {
            match serde_json::from_str::<Document<'static>>(document) {
                Ok(document) => all.extend(document.components.schemas),
                Err(e) => unreachable!("the documents are part of the program, and a test reads each: {e}"),
            }
        }
        compact(all)
    })
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    components: Components<'a>,
}

#[derive(Deserialize)]
struct Components<'a> {
    #[serde(borrow)]
    schemas: BTreeMap<&'a str, Published<'a>>,
}

/// A schema as published.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Published<'a> {
    #[serde(borrow)]
    properties: Option<BTreeMap<&'a str, Published<'a>>>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a str>,
    #[serde(borrow)]
    format: Option<&'a str>,
    #[serde(borrow)]
    items: Option<Box<Published<'a>>>,
    #[serde(borrow, rename = "additionalProperties")]
    additional: Option<Box<Published<'a>>>,
    #[serde(borrow, rename = "allOf")]
    all_of: Vec<Published<'a>>,
    #[serde(borrow, rename = "$ref")]
    reference: Option<&'a str>,
    default: Option<Value>,
    #[serde(borrow, rename = "enum")]
    choices: Vec<&'a str>,
    #[serde(borrow)]
    required: Vec<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-patch-strategy")]
    patch_strategy: Option<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-patch-merge-key")]
    merge_key: Option<&'a str>,
}

fn compact(all: BTreeMap<&'static str, Published<'static>>) -> Schemas {
    let numbers: HashMap<&'static str, usize> =
        all.iter().filter(|(_, s)| s.properties.is_some()).enumerate().map(|(i, (n, _))| (*n, i)).collect();
    let mut list = Vec::with_capacity(numbers.len());
    for (name, schema) in all {
        let Some(properties) = schema.properties else { continue };
        let fields = properties.into_iter().map(|(field, property)| {
            let strategies = property.patch_strategy.unwrap_or_default();
            Field {
                name: field,
                shape: shape(&property, &numbers),
                required: schema.required.contains(&field),
                patch: PatchStrategy {
                    merge: strategies.split(',').any(|s| s == "merge"),
                    retain_keys: strategies.split(',').any(|s| s == "retainKeys"),
                    merge_key: property.merge_key,
                },
                default: property.default,
                choices: property.choices.into(),
            }
        });
        list.push(Schema { name, fields: fields.collect() });
    }
    Schemas { numbers, list }
}

fn shape(schema: &Published<'_>, numbers: &HashMap<&'static str, usize>) -> Shape {
    if let Some(reference) = schema.reference.or_else(|| schema.all_of.iter().find_map(|s| s.reference)) {
        let name = reference.trim_start_matches("#/components/schemas/");
        return match name.rsplit('.').next() {
            Some("Quantity") => Shape::Quantity,
            Some("IntOrString") => Shape::IntOrString,
            Some("Time") => Shape::Time,
            Some("MicroTime") => Shape::MicroTime,
            _ => numbers.get(name).map_or(Shape::Any, |number| Shape::Object(*number)),
        };
    }
    match (schema.kind, schema.format) {
        (Some("string"), Some("byte")) => Shape::Bytes,
        (Some("string"), _) => Shape::Text,
        (Some("integer"), Some("int32")) => Shape::Int32,
        (Some("integer"), _) => Shape::Int64,
        (Some("number"), _) => Shape::Number,
        (Some("boolean"), _) => Shape::Boolean,
        (Some("array"), _) => {
            Shape::List(Box::new(schema.items.as_ref().map_or(Shape::Any, |items| shape(items, numbers))))
        }
        (Some("object"), _) => match &schema.additional {
            Some(values) => Shape::Map(Box::new(shape(values, numbers))),
            None => Shape::Any,
        },
        _ => Shape::Any,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources;

    #[test]
    fn every_resource_has_a_schema() {
        for resource in resources() {
            let schema = schemas().named(resource.schema);
            assert!(schema.is_some_and(|s| s.field("metadata").is_some()), "{}", resource.schema);
        }
    }

    #[test]
    fn merge_keys_and_shapes_are_read() {
        let pod = schemas().named("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!(containers.patch.merge_key, Some("name"));
        assert!(containers.required && containers.patch.merge);
        let volumes = pod.field("volumes").unwrap();
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        assert_eq!(pod.field("nodeSelector").unwrap().shape, Shape::Map(Box::new(Shape::Text)));
        let probe = schemas().named("io.k8s.api.core.v1.HTTPGetAction").unwrap();
        assert_eq!(probe.field("port").unwrap().shape, Shape::IntOrString);
    }
}
