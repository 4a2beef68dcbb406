//! Custom resources: what a CustomResourceDefinition says of its kind, and what that means for its objects.
//!
//! Follows `k8s.io/apiextensions-apiserver`. A definition's schemas are read when its objects are first touched.

mod catalog;
mod columns;
mod conversion;
mod definition;
mod fill;
mod format;
mod intern;
mod json_path;
mod lists;
mod naming;
mod object;
mod pattern;
mod prune;
mod scale;
mod schema;
mod validate;

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use self::definition::{Version, schema_in};
use self::schema::Schema;
use crate::apply::StructuralType;
use crate::schema_rules::SchemaRules;

pub use catalog::Catalog;
pub use conversion::Conversion;
pub use definition::Definition;
pub(crate) use definition::compare_versions;
pub(crate) use pattern::compile as compile_pattern;

/// A custom resource: one version of a definition.
pub struct Custom {
    definition: Arc<Definition>,
    version: usize,
    /// What the stored form of its objects begins with, in this version.
    head: String,
    schema: OnceLock<Compiled>,
}

/// A schema in the forms in which it is used.
struct Compiled {
    schema: Schema,
    merging: StructuralType,
    rules: SchemaRules,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom({}, {})", self.definition.name(), self.version().name)
    }
}

impl Custom {
    fn new(definition: Arc<Definition>, version: usize) -> Self {
        let (group, name) = (definition.group, definition.versions[version].name);
        let head = format!(r#"{{"kind":"{}","apiVersion":"{group}/{name}","#, definition.names.kind);
        Custom { definition, version, head, schema: OnceLock::new() }
    }

    /// The definition that it comes from.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// What its users are told if its version is deprecated.
    pub fn deprecation(&self) -> Option<&str> {
        self.version().warning.as_deref()
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> &'static str {
        self.definition.names.list_kind
    }

    /// Whether a stored value can be served as it lies there: it is of this version, and was written by the schema
    /// that counts.
    pub fn is_as_served(&self, stored: &[u8], revision: u64) -> bool {
        revision > self.definition.spec_revision() && stored.starts_with(self.head.as_bytes())
    }

    /// Whether a stored value lies there in another version than this one.
    pub fn is_other_version(&self, stored: &[u8]) -> bool {
        !stored.starts_with(self.head.as_bytes())
    }

    /// The `openAPIV3Schema` of its version, as the definition has it; null where there is none.
    pub fn open_api_schema(&self) -> Value {
        schema_in(&self.definition.source, self.version).unwrap_or_default()
    }

    pub(crate) fn merging(&self) -> &StructuralType {
        &self.compiled().merging
    }

    fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }

    fn compiled(&self) -> &Compiled {
        self.schema.get_or_init(|| {
            let mut given = self.open_api_schema();
            if self.definition.preserves_unknown || given.is_null() {
                given["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            let schema = Schema::of_resource(&given);
            Compiled {
                // What is wrong with a rule is told to who writes the definition.
                rules: SchemaRules::compile(&given, "", &mut Vec::new()),
                merging: StructuralType::of_resource(&given),
                schema,
            }
        })
    }
}
