//! Defaults: the schema's and the kind's own.

use serde_json::{Map, Value};

use crate::object::Object;
use crate::resource::Resource;
use crate::schema::{Schema, Shape};
use crate::status::Status;

/// Fills in what a client may leave out. Doing it again changes nothing.
///
/// # Errors
/// 413 if the defaults of a definition's schema would take more memory than they may.
pub fn set_defaults(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    if let Some(custom) = &resource.custom {
        let why = "the defaults of its schema would take too much memory";
        return custom.fill(object).map_err(|_| Status::too_large(why));
    }
    // First the schema's, so that the kind's find the parts that are always there.
    fill(resource, object);
    resource.rules.set_defaults(object);
    fill(resource, object);
    Ok(())
}

/// The schema's part of [`set_defaults`].
pub(crate) fn fill(resource: &Resource, object: &mut Object) {
    if let Some(schema) = resource.schema.get() {
        fill_object(schema, &mut object.0);
    }
    object.ensure_metadata();
}

fn fill_object(schema: &Schema, object: &mut Map<String, Value>) {
    for field in schema.fields_with_default() {
        if let Some(default) = &field.default
            && !object.contains_key(field.name)
        {
            object.insert(field.name.to_owned(), default.clone());
        }
    }
    for (name, value) in object.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
        if let Some(field) = schema.field(name) {
            fill_value(&field.shape, value);
        }
    }
    for field in schema.nulls {
        object.entry(*field).or_insert(Value::Null);
    }
}

fn fill_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Object(of), Value::Object(object)) => fill_object(of.get(), object),
        (Shape::List(items), Value::Array(list)) => list.iter_mut().for_each(|item| fill_value(items, item)),
        (Shape::Map(values), Value::Object(map)) => map.values_mut().for_each(|v| fill_value(values, v)),
        _ => {}
    }
}
