//! The entries of `metadata.managedFields`.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::field_manager::FieldManager;
use super::field_set::FieldSet;

/// How a manager came to its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    pub fn name(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// One manager's fields.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry<'a> {
    pub manager: Cow<'a, str>,
    pub operation: Operation,
    pub api_version: Cow<'a, str>,
    pub time: Option<Cow<'a, str>>,
    pub subresource: Cow<'a, str>,
    pub fields: OwnedFields,
}

/// An entry's fields. Most writes touch nobody else's, so that those are decoded only when they must be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum OwnedFields {
    /// As `fieldsV1`, which this program wrote.
    Encoded(Value),
    Set(FieldSet),
}

impl OwnedFields {
    pub fn set(&mut self) -> &mut FieldSet {
        if let OwnedFields::Encoded(fields) = self {
            *self = OwnedFields::Set(FieldSet::from_own_fields_v1(fields));
        }
        match self {
            OwnedFields::Set(set) => set,
            OwnedFields::Encoded(_) => unreachable!("decoded just above"),
        }
    }

    pub fn take(&mut self) -> FieldSet {
        std::mem::take(self.set())
    }

    /// Whether one of the paths is among them.
    pub fn touches(&self, paths: &FieldSet) -> bool {
        match self {
            OwnedFields::Encoded(fields) => paths.touches(fields),
            OwnedFields::Set(set) => !set.intersection(paths).is_empty(),
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            OwnedFields::Encoded(fields) => fields.as_object().is_none_or(Map::is_empty),
            OwnedFields::Set(set) => set.is_empty(),
        }
    }

    fn into_value(self) -> Value {
        match self {
            OwnedFields::Encoded(fields) => fields,
            OwnedFields::Set(set) => set.to_fields_v1(),
        }
    }
}

impl<'a> Entry<'a> {
    pub fn new(manager: &FieldManager<'a>, operation: Operation, fields: FieldSet) -> Self {
        Entry {
            manager: manager.name().into(),
            operation,
            api_version: manager.api_version.into(),
            time: None,
            subresource: manager.subresource.into(),
            fields: OwnedFields::Set(fields),
        }
    }

    /// Whether it is the same manager's: for appliers whichever version they apply.
    pub fn is_of(&self, manager: &FieldManager<'_>, operation: Operation) -> bool {
        self.operation == operation
            && self.manager == manager.name()
            && self.subresource == manager.subresource
            && (operation == Operation::Apply || self.api_version == manager.api_version)
    }

    /// The order of entries: appliers first, then by age.
    fn order(&self) -> (Operation, Option<&str>, &str, &str, &str) {
        (self.operation, self.time.as_deref(), &self.manager, &self.api_version, &self.subresource)
    }

    fn into_value(self) -> Value {
        let mut map = Map::with_capacity(7);
        let mut put = |name: &str, value: &str| {
            if !value.is_empty() {
                map.insert(name.to_owned(), value.into());
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.name());
        put("apiVersion", &self.api_version);
        put("time", self.time.as_deref().unwrap_or_default());
        put("fieldsType", "FieldsV1");
        map.insert("fieldsV1".to_owned(), self.fields.into_value());
        if !self.subresource.is_empty() {
            map.insert("subresource".to_owned(), json!(self.subresource));
        }
        Value::Object(map)
    }
}

/// The entries that this program wrote.
pub(super) fn own_entries(managed: Option<Value>) -> Vec<Entry<'static>> {
    let Some(Value::Array(list)) = managed else { return Vec::new() };
    let entries = list.into_iter().filter_map(|mut entry| {
        let fields = entry.get_mut("fieldsV1").map(Value::take).unwrap_or_default();
        decode(&mut entry, OwnedFields::Encoded(fields))
    });
    entries.collect()
}

/// The entries that a client wrote; nothing if any of them makes no sense.
pub(super) fn foreign_entries(managed: Value) -> Option<Vec<Entry<'static>>> {
    let Value::Array(list) = managed else { return None };
    let mut entries: Vec<Entry<'static>> = Vec::new();
    for mut value in list {
        if value.get("fieldsType").and_then(Value::as_str) != Some("FieldsV1") {
            return None;
        }
        let fields = match value.get("fieldsV1").filter(|fields| !fields.is_null()) {
            None => FieldSet::default(),
            Some(fields) => FieldSet::from_fields_v1(fields)?,
        };
        let entry = decode(&mut value, OwnedFields::Set(fields))?;
        let is_same = |known: &Entry<'_>| {
            known.operation == entry.operation
                && known.manager == entry.manager
                && known.subresource == entry.subresource
                && (entry.operation == Operation::Apply || known.api_version == entry.api_version)
        };
        entries.retain(|known| !is_same(known));
        entries.push(entry);
    }
    Some(entries)
}

fn decode(value: &mut Value, fields: OwnedFields) -> Option<Entry<'static>> {
    let mut text = |field: &str| match value.get_mut(field).map(Value::take) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    Some(Entry {
        manager: text("manager").into(),
        operation: match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        },
        api_version: Some(text("apiVersion")).filter(|version| !version.is_empty())?.into(),
        time: Some(text("time")).filter(|time| !time.is_empty()).map(Cow::Owned),
        subresource: text("subresource").into(),
        fields,
    })
}

/// `metadata.managedFields` of these entries; nothing if there are none.
pub(super) fn encode(mut entries: Vec<Entry<'_>>) -> Option<Value> {
    entries.sort_by(|a, b| a.order().cmp(&b.order()));
    (!entries.is_empty()).then(|| entries.into_iter().map(Entry::into_value).collect())
}

/// Whether two lists of managed fields differ in nothing but their times.
pub fn same_but_times(ours: Option<&Value>, theirs: Option<&Value>) -> bool {
    let entries = |managed: Option<&Value>| managed.and_then(Value::as_array).map_or(0, Vec::len);
    let same_entry = |ours: &Value, theirs: &Value| match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let fields = |map: &Map<String, Value>| map.keys().filter(|key| *key != "time").count();
            fields(ours) == fields(theirs)
                && ours.iter().all(|(key, value)| key == "time" || theirs.get(key) == Some(value))
        }
        (ours, theirs) => ours == theirs,
    };
    entries(ours) == entries(theirs)
        && match (ours.and_then(Value::as_array), theirs.and_then(Value::as_array)) {
            // Times order the entries, so that those of equal lists may stand in another order.
            (Some(ours), Some(theirs)) => {
                ours.iter().all(|our| theirs.iter().any(|their| same_entry(our, their)))
            }
            _ => true,
        }
}
