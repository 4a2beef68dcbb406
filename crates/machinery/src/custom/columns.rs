//! The columns of a custom resource's table: the name, and what the definition wants printed.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::json_path::Path;
use crate::object::Object;
use crate::time;

/// How many values a cell may come by, or it stays empty: a table follows a path for each of its rows.
const MOST_VALUES: usize = 10_000;

/// A column beside the name.
#[derive(Debug)]
pub(super) struct Column {
    given: Given,
    /// None if it makes no sense: then its cells are empty.
    path: Option<Path>,
}

/// A column as the definition says it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Given {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    format: String,
    description: String,
    priority: i32,
    json_path: String,
}

/// The columns of a version; without any, its objects' age.
pub(super) fn read(given: Vec<Given>) -> Vec<Column> {
    let age = || Given {
        name: "Age".into(),
        kind: "date".into(),
        json_path: ".metadata.creationTimestamp".into(),
        description:
            "CreationTimestamp is a timestamp representing the server time when this object was created."
                .into(),
        ..Given::default()
    };
    let given = if given.is_empty() { vec![age()] } else { given };
    given.into_iter().map(|given| Column { path: given.json_path.parse().ok(), given }).collect()
}

impl Column {
    /// How a Table describes it.
    pub fn definition(&self) -> Value {
        let Given { name, kind, format, description, priority, json_path } = &self.given;
        let description = match description.as_str() {
            "" => format!("Custom resource definition column (in JSONPath format): {json_path}"),
            text => text.to_owned(),
        };
        json!({
            "name": name, "type": kind, "format": format, "description": description, "priority": priority,
        })
    }

    /// What it says of an object, at `now` in Unix seconds.
    pub fn cell(&self, object: &Value, now: i64) -> Value {
        let found = self.path.as_ref().and_then(|path| path.first(object, MOST_VALUES).ok().flatten());
        let Some(value) = found.filter(|value| !value.is_null()) else { return Value::Null };
        let whole = |value: &Value| value.as_i64().or_else(|| value.as_f64().map(|number| number as i64));
        match self.given.kind.as_str() {
            "string" => match value {
                Value::String(text) => text.as_str().into(),
                other => other.to_string().into(),
            },
            "integer" => whole(value).map_or(Value::Null, Value::from),
            "number" if value.is_number() => value.clone(),
            "boolean" if value.is_boolean() => value.clone(),
            "date" => match value.as_str() {
                Some(text) if time::Moment::parse(text).is_some() => time::age(Some(text), now).into(),
                Some(_) => "<invalid>".into(),
                None => Value::Null,
            },
            _ => Value::Null,
        }
    }
}

/// The definitions of all columns of a table.
pub(super) fn definitions(columns: &[Column]) -> Value {
    let name = json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    });
    std::iter::once(name).chain(columns.iter().map(Column::definition)).collect()
}

/// One object's cells.
pub(super) fn cells(columns: &[Column], object: &Object, now: i64) -> Vec<Value> {
    let name = object.name().into();
    // The columns look into the whole object, which is shared for that and given back.
    let value = Value::Object(object.0.clone());
    std::iter::once(name).chain(columns.iter().map(|column| column.cell(&value, now))).collect()
}
