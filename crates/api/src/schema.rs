//! The published schemas in a compact form, each read from its text inside the program when it is first used.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use serde::Deserialize;
use serde_json::Value;

use crate::apply::{Topology, topology};
use crate::defaults::nulls;

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
    /// A JSON schema, or whether anything goes.
    ObjectOrBoolean,
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
    pub topology: Topology,
    /// Whether an empty text, 0 or `false` says as much as nothing: a field of Go with `omitempty` that is no pointer.
    pub zero_is_nothing: bool,
    /// Whether a zero is a value that somebody chose.
    pub is_pointer: bool,
}

/// The fields of one schema, by name.
#[derive(Debug)]
pub(crate) struct Schema {
    pub name: &'static str,
    /// Whether writers own its objects as a whole.
    pub atomic: bool,
    /// An object of the schema that says nothing, made when it is first asked for.
    pub empty: OnceLock<serde_json::Map<String, Value>>,
    /// Fields that are `null` where there is nothing.
    pub nulls: &'static [&'static str],
    fields: Box<[Field]>,
    /// The places of those fields that have a default.
    with_default: Box<[usize]>,
    /// The places of those fields that have choices.
    with_choices: Box<[usize]>,
}

impl Schema {
    fn new(name: &'static str, atomic: bool, fields: Box<[Field]>) -> Self {
        let places = |has: fn(&Field) -> bool| -> Box<[usize]> {
            fields.iter().enumerate().filter(|(_, field)| has(field)).map(|(place, _)| place).collect()
        };
        let with_default = places(|field| field.default.is_some());
        let with_choices = places(|field| !field.choices.is_empty());
        Schema {
            name,
            atomic,
            empty: OnceLock::new(),
            nulls: nulls(name),
            fields,
            with_default,
            with_choices,
        }
    }

    pub fn fields_with_default(&self) -> impl Iterator<Item = &Field> {
        self.with_default.iter().map(|place| &self.fields[*place])
    }

    pub fn fields_with_choices(&self) -> impl Iterator<Item = &Field> {
        self.with_choices.iter().map(|place| &self.fields[*place])
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|field| field.name.cmp(name)).ok().map(|at| &self.fields[at])
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }
}

/// All schemas, each read when it is first asked for.
pub(crate) struct Schemas {
    /// In the order of their names: name, text, and what the text says.
    list: Box<[(&'static str, &'static str, OnceLock<Schema>)]>,
}

impl Schemas {
    /// The schema of that name.
    pub fn named(&self, name: &str) -> Option<&Schema> {
        self.number(name).map(|number| self.numbered(number))
    }

    /// The schema of that number: what [`Shape::Object`] holds.
    pub fn numbered(&self, number: usize) -> &Schema {
        let (name, text, schema) = &self.list[number];
        schema.get_or_init(|| match serde_json::from_str::<Published<'static>>(text) {
            Ok(published) => self.compact(name, published),
            Err(e) => unreachable!("{name} is part of the program, and a test reads each: {e}"),
        })
    }

    /// The schema of that name as published.
    pub fn published(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.list[self.find(name)?].1).ok()
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.list.binary_search_by(|(known, ..)| (*known).cmp(name)).ok()
    }

    /// Nothing for schemas without fields: what they describe is no object.
    fn number(&self, name: &str) -> Option<usize> {
        self.find(name).filter(|number| self.list[*number].1.contains("\"properties\":{"))
    }

    fn compact(&self, name: &'static str, schema: Published<'static>) -> Schema {
        let pointers = pointers(name);
        let fields = schema.properties.into_iter().flatten().map(|(field, property)| {
            let required = schema.required.contains(&field);
            let shape = self.shape(&property);
            let is_scalar = matches!(
                shape,
                Shape::Text | Shape::Bytes | Shape::Int32 | Shape::Int64 | Shape::Number | Shape::Boolean
            );
            let strategies = property.patch_strategy.unwrap_or_default();
            Field {
                name: field,
                shape,
                required,
                zero_is_nothing: is_scalar
                    && !required
                    && !pointers.contains(&field)
                    && !has_default(name, field, &property),
                patch: PatchStrategy {
                    merge: strategies.split(',').any(|s| s == "merge"),
                    retain_keys: strategies.split(',').any(|s| s == "retainKeys"),
                    merge_key: property.merge_key,
                },
                // What nobody has a schema for is managed as one thing.
                topology: match property.names("RawExtension") {
                    true => Topology::Atomic,
                    false => topology(property.list_type, &property.list_keys, property.map_type),
                },
                default: property.default.filter(|default| !is_omitted(name, field, default)),
                is_pointer: pointers.contains(&field),
                choices: if says_itself(name, field) { Box::default() } else { property.choices.into() },
            }
        });
        let atomic = schema.map_type == Some("atomic");
        Schema::new(name, atomic, fields.collect())
    }

    fn shape(&self, schema: &Published<'_>) -> Shape {
        if let Some(reference) = schema.target() {
            let name = reference.trim_start_matches("#/components/schemas/");
            return match name.rsplit('.').next() {
                Some("Quantity") => Shape::Quantity,
                Some("IntOrString") => Shape::IntOrString,
                Some("Time") => Shape::Time,
                Some("MicroTime") => Shape::MicroTime,
                Some("JSONSchemaPropsOrBool") => Shape::ObjectOrBoolean,
                _ => self.number(name).map_or(Shape::Any, Shape::Object),
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
                Shape::List(Box::new(schema.items.as_ref().map_or(Shape::Any, |items| self.shape(items))))
            }
            (Some("object"), _) => match &schema.additional {
                Some(values) => Shape::Map(Box::new(self.shape(values))),
                None => Shape::Any,
            },
            _ => Shape::Any,
        }
    }
}

/// Whether a default is published that nobody ever sees: Go leaves empty texts and zeros out of these.
fn is_omitted(schema: &str, field: &str, default: &Value) -> bool {
    let kind = schema.rsplit('.').next().unwrap_or_default();
    let source = ["ConfigMap", "Secret", "LocalObject"].iter().any(|kinds| kind.starts_with(kinds));
    match (kind, field) {
        ("ReplicationControllerSpec", "minReadySeconds") | ("ScaleSpec", "replicas") => default == 0,
        (_, "name") => source && default == "",
        _ => false,
    }
}

/// Whether the code of kinds holds the field against its choices, because it depends on others whether that is done, or because
/// the fault is called otherwise.
fn says_itself(schema: &str, field: &str) -> bool {
    matches!(
        (schema.rsplit('.').next().unwrap_or_default(), field),
        ("AzureDiskVolumeSource", "cachingMode" | "kind")
            | ("AppArmorProfile" | "HostPathVolumeSource" | "SeccompProfile", "type")
            | ("HTTPGetAction", "scheme")
            | ("Lifecycle", "stopSignal")
            | ("NodeSelectorRequirement" | "ScopedResourceSelectorRequirement" | "Toleration", "operator")
            | ("Taint", "effect")
            | ("TopologySpreadConstraint", "whenUnsatisfiable")
            | ("VolumeMount", "mountPropagation")
    )
}

/// Whether a field is written with its default where a client says nothing: it has no `omitempty`.
fn has_default(schema: &str, field: &str, property: &Published<'_>) -> bool {
    let zero = |default: &Value| *default == "" || *default == 0 || *default == false;
    property.default.as_ref().is_some_and(|default| zero(default) && !is_omitted(schema, field, default))
}

/// The fields of a schema that are pointers to a text, a number or a truth value in Go, which the published schemas don't
/// tell: there a zero is a value.
fn pointers(schema: &str) -> Vec<&'static str> {
    static POINTERS: OnceLock<BTreeMap<&str, &str>> = OnceLock::new();
    let all = POINTERS.get_or_init(|| {
        include_str!("../schemas/pointers.txt").lines().filter_map(|line| line.split_once(' ')).collect()
    });
    all.get(schema).into_iter().flat_map(|fields| fields.split(' ')).collect()
}

/// The published schemas, one a line, by name. `schemas/select.py` makes them.
const PUBLISHED: &str = include_str!("../schemas/schemas.json");

/// The schemas of everything that is served.
pub(crate) fn schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| {
        let lines = PUBLISHED.lines().filter_map(|line| {
            let (name, text) = line.strip_prefix('"')?.split_once("\":")?;
            Some((name, text.strip_suffix(',').unwrap_or(text), OnceLock::new()))
        });
        Schemas { list: lines.collect() }
    })
}

impl Published<'_> {
    /// The schema that this one refers to.
    fn target(&self) -> Option<&str> {
        self.reference.or_else(|| self.all_of.iter().find_map(|part| part.reference))
    }

    /// Whether this refers to a schema of that kind.
    fn names(&self, kind: &str) -> bool {
        self.target().and_then(|name| name.rsplit('.').next()) == Some(kind)
    }
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
    #[serde(borrow, rename = "x-kubernetes-list-type")]
    list_type: Option<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-list-map-keys")]
    list_keys: Vec<&'a str>,
    #[serde(borrow, rename = "x-kubernetes-map-type")]
    map_type: Option<&'a str>,
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
    fn every_schema_can_be_read() {
        let all = schemas();
        for (name, ..) in &all.list {
            let number = all.find(name).expect("the list is in order");
            assert_eq!(all.numbered(number).name, *name);
        }
        assert!(all.list.len() > 500);
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
