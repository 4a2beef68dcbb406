//! The types of CEL, and those that a schema describes.

use std::fmt;

use serde_json::Value;

/// What is known of a value before there is one.
#[derive(Debug, Clone, PartialEq)]
pub enum Type<'s> {
    /// Nothing.
    Dyn,
    /// `null`.
    Null,
    /// A boolean.
    Bool,
    /// A whole number.
    Int,
    /// A whole number that is never negative.
    Uint,
    /// A number.
    Double,
    /// A text.
    String,
    /// Bytes.
    Bytes,
    /// A moment.
    Timestamp,
    /// A span of time.
    Duration,
    /// A type as a value.
    Type,
    /// A list of such items.
    List(Box<Type<'s>>),
    /// A map from such keys to such values.
    Map(Box<Type<'s>>, Box<Type<'s>>),
    /// Something that may be missing.
    Optional(Box<Type<'s>>),
    /// An object with the properties of an OpenAPI schema.
    Object(&'s Value),
    /// An object that an expression makes, of that name.
    Message(String),
    /// A type that only its functions know, such as `net.IP`.
    Opaque(&'static str),
    /// A parameter of a function's signature.
    Parameter(u8),
}

impl<'s> Type<'s> {
    /// What values of a structural schema are.
    pub fn of_schema(schema: &'s Value) -> Self {
        let text = |key: &str| schema.get(key).and_then(Value::as_str).unwrap_or_default();
        match text("type") {
            "boolean" => Type::Bool,
            "integer" => Type::Int,
            "number" => Type::Double,
            "string" => match text("format") {
                "date" | "date-time" => Type::Timestamp,
                "duration" => Type::Duration,
                "byte" => Type::Bytes,
                _ => Type::String,
            },
            "array" => Type::List(Box::new(schema.get("items").map_or(Type::Dyn, Type::of_schema))),
            "object" => match (schema.get("additionalProperties"), schema.get("properties")) {
                (Some(values @ Value::Object(_)), _) => {
                    Type::Map(Box::new(Type::String), Box::new(Type::of_schema(values)))
                }
                (Some(Value::Bool(true)), None) => Type::Map(Box::new(Type::String), Box::new(Type::Dyn)),
                (_, Some(Value::Object(_))) => Type::Object(schema),
                _ if schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) => {
                    Type::Object(schema)
                }
                _ if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) => {
                    Type::Dyn
                }
                _ => Type::Object(schema),
            },
            _ => Type::Dyn,
        }
    }

    /// The type of an object's field, by its name in an expression.
    pub(crate) fn field(&self, name: &str) -> Option<Type<'s>> {
        let Type::Object(schema) = self else { return None };
        field_schema(schema, name).map(Type::of_schema)
    }

    /// The type, where nothing more will become known of it.
    pub(crate) fn settled(self) -> Self {
        match self {
            Type::Parameter(_) => Type::Dyn,
            Type::List(of) => Type::list(of.settled()),
            Type::Optional(of) => Type::optional(of.settled()),
            Type::Map(key, value) => Type::Map(Box::new(key.settled()), Box::new(value.settled())),
            other => other,
        }
    }

    pub(crate) fn list(of: Type<'s>) -> Self {
        Type::List(Box::new(of))
    }

    pub(crate) fn optional(of: Type<'s>) -> Self {
        Type::Optional(Box::new(of))
    }
}

/// Whether objects of the schema have a version, a kind and metadata.
pub(crate) fn is_resource(schema: &Value) -> bool {
    schema.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true))
}

/// The schema of an object's field, by its name in an expression.
pub(crate) fn field_schema<'s>(schema: &'s Value, name: &str) -> Option<&'s Value> {
    let property = |name: &str| schema.get("properties").and_then(|all| all.get(name));
    // A resource has these, whatever its schema says of them.
    match name {
        "apiVersion" | "kind" if is_resource(schema) => {
            return metadata().get("properties").and_then(|all| all.get("name"));
        }
        "metadata" if is_resource(schema) => return Some(metadata()),
        _ => {}
    }
    property(name).or_else(|| property(&unescaped(name)?))
}

/// What an expression may say of an object's metadata.
pub(crate) fn metadata() -> &'static Value {
    static METADATA: std::sync::OnceLock<Value> = std::sync::OnceLock::new();
    METADATA.get_or_init(|| {
        serde_json::json!({"type": "object", "properties": {
            "name": {"type": "string"}, "generateName": {"type": "string"},
        }})
    })
}

/// A property's name behind its name in an expression, where it had to be escaped
/// (`x-kubernetes-validations` in the API's documentation).
pub(crate) fn unescaped(name: &str) -> Option<String> {
    if !name.contains("__") {
        return None;
    }
    let marks = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
    if let Some(word) = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && !word.is_empty()
        && word.bytes().all(|b| b.is_ascii_lowercase())
        && !marks.iter().any(|(mark, _)| *mark == name)
    {
        return Some(word.to_owned());
    }
    let (mut out, mut rest) = (String::new(), name);
    while let Some(at) = rest.find("__") {
        out.push_str(&rest[..at]);
        let (mark, stands_for) = marks.iter().find(|(mark, _)| rest[at..].starts_with(mark))?;
        out.push_str(stands_for);
        rest = &rest[at + mark.len()..];
    }
    out.push_str(rest);
    Some(out)
}

impl fmt::Display for Type<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Dyn | Type::Parameter(u8::MAX) => "dyn",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::Type => "type",
            Type::Object(_) => "object",
            Type::Message(name) => name,
            Type::Opaque(name) => name,
            Type::List(of) => return write!(f, "list({of})"),
            Type::Map(key, value) => return write!(f, "map({key}, {value})"),
            Type::Optional(of) => return write!(f, "optional_type({of})"),
            Type::Parameter(n) => return write!(f, "{}", char::from(b'A' + n)),
        };
        f.write_str(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_properties_are_escaped_and_back() {
        assert_eq!(unescaped("a"), None);
        assert_eq!(unescaped("a__dash__b").as_deref(), Some("a-b"));
        assert_eq!(unescaped("__namespace__").as_deref(), Some("namespace"));
        assert_eq!(unescaped("x__underscores__y__dot__z").as_deref(), Some("x__y.z"));
        assert_eq!(unescaped("a__b"), None);
    }
}
