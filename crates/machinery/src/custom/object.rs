//! What a custom resource's schema means for an object of it: unknown fields, defaults, faults.

use serde_json::{Map, Value};
use values::Exceeded;

use super::schema::{Known, Schema};
use super::{Custom, columns, fill, lists, prune, validate};
use crate::conform::Conform;
use crate::faults::Faults;
use crate::meta::OBJECT_META;
use crate::metadata::validate_metadata;
use crate::mismatch::TypeMismatch;
use crate::object::Object;
use crate::status::Cause;

impl Custom {
    /// Takes out what the schema doesn't have, and returns its paths; the metadata are those of any object.
    pub(crate) fn conform(&self, object: &mut Object, most: usize) -> Result<Vec<String>, TypeMismatch> {
        let mut faults = Vec::new();
        let schema = &self.compiled().schema;
        let in_metadata = conform_metadata(schema, &mut object.0, "", &mut faults, most);
        in_metadata?;
        let unknown = prune::prune(schema, &mut object.0, most);
        faults.extend(unknown.into_iter().map(|path| format!("unknown field {path:?}")));
        faults.truncate(most);
        object.remove_meta("selfLink");
        object.ensure_metadata();
        Ok(faults)
    }

    /// Takes out what is `null` and says nothing.
    pub(crate) fn drop_nulls(&self, object: &mut Object) {
        fill::drop_nulls(&self.compiled().schema, &mut object.0);
    }

    /// Fills the schema's defaults in.
    ///
    /// # Errors
    /// If they would take more memory than they may.
    pub(crate) fn fill(&self, object: &mut Object) -> Result<(), Exceeded> {
        let filled = fill::fill(&self.compiled().schema, &mut object.0);
        object.ensure_metadata();
        filled
    }

    /// The faults of an object, which replaces `old` through `subresource` if there is one, beyond those of its metadata.
    pub(crate) fn validate(
        &self,
        object: &Object,
        old: Option<&Object>,
        subresource: &str,
        faults: &mut Faults,
    ) {
        let compiled = self.compiled();
        let value = Value::Object(object.0.clone());
        let before = old.map(|old| Value::Object(old.0.clone()));
        let mut found = Faults::default();
        match subresource {
            "status" => validate_status(&compiled.schema, &value, before.as_ref(), &mut found),
            _ => validate::validate(&compiled.schema, &value, before.as_ref(), "", &mut found),
        }
        self.validate_scale(object, &mut found);
        validate_embedded(&compiled.schema, &value, before.as_ref(), "", &mut found);
        // A list that held an item twice before is no fault of a change to something else.
        let mut of_lists = Faults::default();
        if let Some(before) = &before {
            lists::validate(&compiled.schema, before, "", &mut of_lists);
        }
        if of_lists.is_empty() {
            lists::validate(&compiled.schema, &value, "", &mut found);
        }
        compiled.rules.validate_after(&value, before.as_ref(), &mut found);
        faults.append(found);
    }

    /// The JSON pointer of a field that objects can be selected by.
    pub(crate) fn selectable(&self, field: &str) -> Option<&str> {
        let fields = &self.version().selectable;
        fields.iter().find(|(name, _)| name == field).map(|(_, pointer)| pointer.as_str())
    }

    /// The JSON pointers of all such fields.
    pub(crate) fn selectable_pointers(&self) -> impl Iterator<Item = &str> {
        self.version().selectable.iter().map(|(_, pointer)| pointer.as_str())
    }

    /// The columns of its Tables.
    pub(crate) fn columns(&self) -> Value {
        columns::definitions(&self.version().columns)
    }

    /// The cells of one object, at `now` in Unix seconds.
    pub(crate) fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        columns::cells(&self.version().columns, object, now)
    }
}

/// Of a changed status its own schema alone is asked, and its faults are told from there on, as upstream (`ValidateStatusUpdate`).
fn validate_status(schema: &Schema, value: &Value, old: Option<&Value>, faults: &mut Faults) {
    const STATUS: &str = "status";
    let (Some(Known::Schema(schema)), Some(status)) = (schema.field(STATUS), value.get(STATUS)) else {
        return;
    };
    let mut found = Faults::default();
    validate::validate(schema, status, old.and_then(|old| old.get(STATUS)), "", &mut found);
    faults.extend(found.into_iter().map(|cause| {
        let field = match cause.field.as_str() {
            "<nil>" => STATUS.to_owned(),
            field if field.starts_with('[') => format!("{STATUS}{field}"),
            field => format!("{STATUS}.{field}"),
        };
        Cause { field, ..cause }
    }));
}

/// Metadata of an object and of those embedded in it, held against their own schema.
fn conform_metadata(
    schema: &Schema,
    object: &mut Map<String, Value>,
    path: &str,
    faults: &mut Vec<String>,
    most: usize,
) -> Result<(), TypeMismatch> {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    if (path.is_empty() || schema.embedded)
        && let Some(of_metadata) = OBJECT_META.get()
    {
        match object.get_mut("metadata") {
            None => {}
            Some(Value::Object(metadata)) => {
                Conform::at(&below("metadata"), faults, most).object(of_metadata, metadata)?;
            }
            Some(Value::Null) => {
                object.remove("metadata");
            }
            Some(other) => {
                return Err(TypeMismatch::of_type(other, "v1.ObjectMeta"));
            }
        }
    }
    if !schema.holds_embedded {
        return Ok(());
    }
    for (name, value) in object.iter_mut() {
        if let Some(Known::Schema(field)) = schema.field(name).filter(|_| name != "metadata") {
            conform_embedded(field, value, &below(name), faults, most)?;
        }
    }
    Ok(())
}

fn conform_embedded(
    schema: &Schema,
    value: &mut Value,
    path: &str,
    faults: &mut Vec<String>,
    most: usize,
) -> Result<(), TypeMismatch> {
    match value {
        Value::Object(object) => conform_metadata(schema, object, path, faults, most),
        Value::Array(list) => {
            let Some(items) = &schema.items else { return Ok(()) };
            list.iter_mut().enumerate().try_for_each(|(index, item)| {
                conform_embedded(items, item, &format!("{path}[{index}]"), faults, most)
            })
        }
        _ => Ok(()),
    }
}

/// Objects within the object say what they are, and have metadata as any object.
pub(super) fn validate_embedded(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    faults: &mut Faults,
) {
    if !(schema.holds_embedded || schema.embedded) || old == Some(value) {
        return;
    }
    match value {
        Value::Object(object) => {
            if schema.embedded && !path.is_empty() {
                for field in ["apiVersion", "kind"] {
                    if object.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
                        faults.push(Cause::required(format!("{path}.{field}"), "must not be empty"));
                    }
                }
                let metadata = object.get("metadata").unwrap_or(&Value::Null);
                validate_metadata(metadata, &format!("{path}.metadata"), faults);
            }
            for (name, value) in object {
                if let Some(Known::Schema(field)) = schema.field(name) {
                    let dot = if path.is_empty() { "" } else { "." };
                    let old = old.and_then(|old| old.get(name));
                    validate_embedded(field, value, old, &format!("{path}{dot}{name}"), faults);
                }
            }
        }
        Value::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                if let Some(items) = &schema.items {
                    validate_embedded(items, item, None, &format!("{path}[{index}]"), faults);
                }
            }
        }
        _ => {}
    }
}
