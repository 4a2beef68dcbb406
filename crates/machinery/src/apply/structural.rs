//! The types of custom resources: structural schemas (`apiextensions.k8s.io/v1 JSONSchemaProps`).

use std::collections::BTreeMap;

use serde_json::Value;

use super::types::{Atom, Fields, Form, Topology, Type, topology};
use crate::meta::OBJECT_META;

/// Deeper schemas say nothing: definitions with such are refused.
const DEEPEST: usize = 64;

/// What a structural schema says about merging.
#[derive(Debug, Clone, PartialEq)]
pub struct StructuralType(Kind);

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Text,
    Number,
    Truth,
    /// One of these.
    Scalar,
    /// Anything: taken from the value.
    Any,
    Metadata,
    List(Topology, Box<StructuralType>),
    Map(Topology, Box<StructuralType>),
    Struct(Topology, Struct),
}

/// An object with named fields.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Struct {
    fields: BTreeMap<Box<str>, (StructuralType, Option<Value>)>,
    /// `x-kubernetes-preserve-unknown-fields`
    open: bool,
}

impl Struct {
    pub fn field(&self, name: &str) -> Option<Type<'_>> {
        self.fields.get(name).map(|(field, _)| Type::Structural(field))
    }

    pub fn key_default(&self, name: &str) -> Option<&Value> {
        self.fields.get(name)?.1.as_ref()
    }

    pub fn is_open(&self) -> bool {
        self.open
    }
}

impl StructuralType {
    /// The type of a custom resource with that schema (`openAPIV3Schema` of one version).
    pub fn of_resource(schema: &Value) -> Self {
        let mut root = match parse(schema, 0, false) {
            Kind::Struct(_, root) => root,
            _ => Struct { open: true, ..Struct::default() },
        };
        for name in ["apiVersion", "kind"] {
            root.fields.insert(name.into(), (StructuralType(Kind::Text), None));
        }
        root.fields.insert("metadata".into(), (StructuralType(Kind::Metadata), None));
        StructuralType(Kind::Struct(Topology::Usual, root))
    }

    pub(super) fn atom(&self, value: Option<&Value>) -> Atom<'_> {
        match &self.0 {
            Kind::Text
            | Kind::Number
            | Kind::Truth
            | Kind::Scalar
            | Kind::List(Topology::Usual | Topology::Atomic, _)
            | Kind::Map(Topology::Atomic, _)
            | Kind::Struct(Topology::Atomic, _) => Atom::Leaf,
            Kind::Any => Type::Deduced.atom(value),
            Kind::Metadata => OBJECT_META.get().map_or(Type::Deduced, Type::Schema).atom(value),
            Kind::List(Topology::Keyed(keys), items) => Atom::List { keys, items: Type::Structural(items) },
            Kind::Map(_, values) => Atom::Map(Fields::Structural(values)),
            Kind::Struct(_, fields) => Atom::Map(Fields::Struct(fields)),
        }
    }

    pub(super) fn form(&self) -> Form<'_> {
        match &self.0 {
            Kind::Text => Form::Text,
            Kind::Number => Form::Number,
            Kind::Truth => Form::Truth,
            Kind::Scalar => Form::Scalar,
            Kind::Any => Form::Anything,
            Kind::Metadata => OBJECT_META.get().map_or(Type::Deduced, Type::Schema).form(),
            Kind::List(topology, items) => {
                Form::List { keys: topology.keys(), items: Type::Structural(items) }
            }
            Kind::Map(_, values) => Form::Map(Fields::Structural(values)),
            Kind::Struct(_, fields) => Form::Map(Fields::Struct(fields)),
        }
    }

    pub(super) fn is_deduced(&self) -> bool {
        self.0 == Kind::Any
    }
}

/// `open` is whether a schema around it takes unknown fields: upstream's types do then below it too (kube-openapi's `visitSpec`);
/// what such a field holds is left out afterwards, as the schema says.
fn parse(schema: &Value, depth: usize, open: bool) -> Kind {
    let text = |field: &str| schema.get(field).and_then(Value::as_str);
    let flag = |field: &str| schema.get(field).and_then(Value::as_bool).unwrap_or_default();
    let open = open || flag("x-kubernetes-preserve-unknown-fields");
    let inner = |schema: &Value| Box::new(StructuralType(parse(schema, depth + 1, open)));
    if depth > DEEPEST {
        return Kind::Any;
    }
    if flag("x-kubernetes-int-or-string") {
        return Kind::Scalar;
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let topology = topology(text("x-kubernetes-list-type"), &keys, text("x-kubernetes-map-type"));
    match text("type") {
        Some("object") => {}
        Some("array") => {
            let items = schema.get("items").map_or(Box::new(StructuralType(Kind::Any)), inner);
            return Kind::List(topology, items);
        }
        // Upstream knows texts of no other format for sure.
        Some("string") if matches!(text("format"), None | Some("" | "byte")) => return Kind::Text,
        Some("integer" | "number") => return Kind::Number,
        Some("boolean") => return Kind::Truth,
        Some(_) => return Kind::Scalar,
        None => return Kind::Any,
    }
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let fields = properties.iter().map(|(name, property)| {
            let field = StructuralType(parse(property, depth + 1, open));
            (name.as_str().into(), (field, property.get("default").cloned()))
        });
        return Kind::Struct(topology, Struct { fields: fields.collect(), open });
    }
    if flag("x-kubernetes-embedded-resource") {
        return Kind::Any;
    }
    match schema.get("additionalProperties") {
        Some(values @ Value::Object(_)) => Kind::Map(topology, inner(values)),
        // An object of which nothing is said may have any field, also where it is replaced as a whole.
        _ if topology == Topology::Atomic => {
            Kind::Struct(topology, Struct { open: true, ..Struct::default() })
        }
        _ => Kind::Any,
    }
}
