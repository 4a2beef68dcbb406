//! What a kind's schema can't say.

use serde_json::{Value, json};

use crate::faults::Faults;
use crate::name;
use crate::object::Object;
use crate::resource::Resource;
use crate::time;

/// A column of a kind's table.
#[derive(Debug)]
pub struct Column {
    /// What stands above it.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// 0 is always shown, 1 only in a wide table.
    pub priority: u8,
}

impl Column {
    /// A column of texts.
    pub const fn text(name: &'static str) -> Self {
        Column { name, kind: "string", priority: 0 }
    }

    /// A column of integers.
    pub const fn integer(name: &'static str) -> Self {
        Column { name, kind: "integer", priority: 0 }
    }

    /// A column of that kind.
    pub const fn of(name: &'static str, kind: &'static str) -> Self {
        Column { name, kind, priority: 0 }
    }

    /// A column of texts for wide tables alone.
    pub const fn wide(name: &'static str) -> Self {
        Column { name, kind: "string", priority: 1 }
    }
}

/// The code of one kind; what it leaves out is as for any object.
pub trait Rules: Sync {
    /// Defaults beyond the schema's.
    fn set_defaults(&self, _object: &mut Object) {}

    /// Fields that a new object starts with, whatever the client sent. Its status is gone already, where the
    /// kind has a status subresource and `keeps_status` doesn't say otherwise.
    fn prepare_create(&self, _object: &mut Object) {}

    /// Whether a new object may bring its status along.
    fn keeps_status(&self) -> bool {
        false
    }

    /// The resource in whose form and place the objects lie, where that is not their own.
    fn stored_as(&self) -> Option<&'static Resource> {
        None
    }

    /// The resource of the same objects in another version, where there is such.
    fn in_version(&self, _api_version: &str) -> Option<&'static Resource> {
        None
    }

    /// Brings an object into the form in which it lies.
    fn to_stored(&self, _object: &mut Object) {}

    /// Brings an object out of the form in which it lies.
    fn to_served(&self, _object: &mut Object) {}

    /// Whether an update must name the version that it replaces: upstream's `AllowUnconditionalUpdate`, turned
    /// around.
    fn demands_version(&self) -> bool {
        false
    }

    /// Whether a PUT makes what is not there: upstream's `AllowCreateOnUpdate`.
    fn creates_on_update(&self) -> bool {
        false
    }

    /// Whether a delete that says nothing of dependents leaves them: upstream's `DefaultGarbageCollectionPolicy`.
    fn orphans_by_default(&self) -> bool {
        false
    }

    /// Whether a delete answers with the object that it deleted, not with a Status: upstream's `ReturnDeletedObject`.
    fn answers_deleted_object(&self) -> bool {
        false
    }

    /// How often upstream's validation of an update looks at the metadata as that of any object, and as that of a changed
    /// one.
    fn looks_at_metadata(&self) -> (usize, usize) {
        (0, 1)
    }

    /// What a change of the object may not change, beyond status and metadata.
    fn prepare_update(&self, _subresource: &str, _object: &mut Object, _old: &Object) {}

    /// Whether a change beyond the spec counts as a new generation.
    fn counts_as_change(&self, _object: &Object, _old: &Object) -> bool {
        false
    }

    /// Why `name` can't be a name of this kind.
    fn name_fault(&self, name: &str) -> Option<&'static str> {
        name::subdomain_fault(name)
    }

    /// Likewise, where it depends on the object how it has to be called: all that is wrong.
    fn name_faults_in(&self, name: &str, _object: &Object) -> Vec<&'static str> {
        self.name_fault(name).into_iter().collect()
    }

    /// Whether a name of the kind that is to be generated is held against the same rules: names that upstream validates by
    /// declarations are not.
    fn looks_at_prefix(&self) -> bool {
        true
    }

    /// Whether an update is held against what is asked of any object of the kind, not only against what was.
    fn looks_at_changes(&self) -> bool {
        true
    }

    /// Whether an empty list or map is another value than none wherever objects are compared: upstream does so by `reflect.DeepEqual`.
    fn sees_empties(&self) -> bool {
        false
    }

    /// Whether an object without a name gets one, even where it says nothing to begin it with.
    fn names_itself(&self) -> bool {
        false
    }

    /// Faults of an object beyond its metadata.
    fn validate(&self, _object: &Object, _faults: &mut Faults) {}

    /// Faults of a new object, beyond those of any.
    fn validate_create(&self, _object: &Object, _faults: &mut Faults) {}

    /// Faults of a change, beyond those of the object.
    fn validate_update(&self, _subresource: &str, _object: &Object, _old: &Object, _faults: &mut Faults) {}

    /// What the writer of a valid object should hear, which replaces `old` if there is one.
    fn warnings(&self, _object: &Object, _old: Option<&Object>) -> Vec<String> {
        Vec::new()
    }

    /// Fields for field selectors, with their JSON pointers, beyond name and namespace.
    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// An annotation that upstream makes up when it converts whole objects, and only then: their metadata alone lacks it.
    fn made_up_annotation(&self) -> Option<&'static str> {
        None
    }

    /// Where the value of such a field is, if it isn't at its pointer: both pointers.
    fn selectable_otherwise(&self) -> &'static [(&'static str, &'static str)] {
        &[]
    }

    /// The columns of the kind's table.
    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Age")] }
    }

    /// The cells of one object, at `now` in Unix seconds.
    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        vec![json!(object.name()), age(object, now)]
    }
}

/// A kind of which its schema says all.
pub struct Plain;

impl Rules for Plain {}

/// The one for resources that are no part of the program.
pub static PLAIN: Plain = Plain;

/// The number at a JSON pointer, 0 where there is none.
pub fn number(object: &Object, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The text at a JSON pointer, empty where there is none.
pub fn text<'a>(object: &'a Object, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The cell of the column `Age`.
pub fn age(object: &Object, now: i64) -> Value {
    time::age(object.meta("creationTimestamp").and_then(Value::as_str), now).into()
}
