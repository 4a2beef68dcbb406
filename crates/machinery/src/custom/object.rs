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
        Embedded { path: String::new(), faults: &mut faults, most }.object(schema, &mut object.0)?;
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
            _ => {
                validate::validate(&compiled.schema, &value, before.as_ref(), "", &mut found);
                // As upstream, of which no write of a status asks whether objects in it have a kind and a version.
                validate_embedded(&compiled.schema, &value, before.as_ref(), "", &mut found);
            }
        }
        self.validate_scale(object, &mut found);
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

/// Of a changed status its own schema alone is asked, and its faults are reported from there on, as upstream (`ValidateStatusUpdate`).
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

/// Holds the metadata of an object, and of those embedded in it, against their own schema.
struct Embedded<'a> {
    /// Where it is: one text for all of them, since an object can have as many items as its keys are long.
    path: String,
    faults: &'a mut Vec<String>,
    most: usize,
}

impl Embedded<'_> {
    fn object(&mut self, schema: &Schema, object: &mut Map<String, Value>) -> Result<(), TypeMismatch> {
        if (self.path.is_empty() || schema.embedded)
            && let Some(of_metadata) = OBJECT_META.get()
        {
            match object.get_mut("metadata") {
                None => {}
                Some(Value::Object(metadata)) => {
                    let length = enter(&mut self.path, "metadata");
                    let mut conform = Conform::at(std::mem::take(&mut self.path), self.faults, self.most);
                    conform.object(of_metadata, metadata)?;
                    self.path = conform.into_path();
                    self.path.truncate(length);
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
        for (name, value) in object.iter_mut().filter(|(name, value)| *name != "metadata" && has_parts(value))
        {
            if let Some(Known::Schema(field)) = schema.field(name) {
                let length = enter(&mut self.path, name);
                self.value(field, value)?;
                self.path.truncate(length);
            }
        }
        Ok(())
    }

    fn value(&mut self, schema: &Schema, value: &mut Value) -> Result<(), TypeMismatch> {
        match value {
            Value::Object(object) => self.object(schema, object)?,
            Value::Array(list) => {
                let Some(items) = &schema.items else { return Ok(()) };
                for (index, item) in list.iter_mut().enumerate().filter(|(_, item)| has_parts(item)) {
                    let length = enter_item(&mut self.path, index);
                    self.value(items, item)?;
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a value can have an object in it.
fn has_parts(value: &Value) -> bool {
    value.is_object() || value.is_array()
}

/// Leads a path to a field; how long it was.
pub(super) fn enter(path: &mut String, name: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(name);
    length
}

/// Leads a path to an item; how long it was.
pub(super) fn enter_item(path: &mut String, index: usize) -> usize {
    let length = path.len();
    path.push_str(&format!("[{index}]"));
    length
}

/// Objects within the object say what they are, and have metadata as any object.
pub(super) fn validate_embedded(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &str,
    faults: &mut Faults,
) {
    validate_embedded_at(schema, value, old, &mut path.to_owned(), faults);
}

fn validate_embedded_at(
    schema: &Schema,
    value: &Value,
    old: Option<&Value>,
    path: &mut String,
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
                let length = enter(path, "metadata");
                validate_metadata(metadata, path, faults);
                path.truncate(length);
            }
            for (name, value) in object.iter().filter(|(_, value)| has_parts(value)) {
                if let Some(Known::Schema(field)) = schema.field(name) {
                    let length = enter(path, name);
                    let old = old.and_then(|old| old.get(name));
                    validate_embedded_at(field, value, old, path, faults);
                    path.truncate(length);
                }
            }
        }
        Value::Array(list) => {
            let Some(items) = &schema.items else { return };
            for (index, item) in list.iter().enumerate().filter(|(_, item)| has_parts(item)) {
                let length = enter_item(path, index);
                validate_embedded_at(items, item, None, path, faults);
                path.truncate(length);
            }
        }
        _ => {}
    }
}
