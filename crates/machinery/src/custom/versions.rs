//! Objects of a definition in its versions: what each version's schema has, and where they lie.
//!
//! As upstream: what lies there gets the defaults of the version that it lies in, and what comes out of a conversion
//! loses what its new version doesn't have.

use std::fmt;

use serde_json::Value;

use super::definition::schema_in;
use super::schema::Schema;
use super::{Custom, Definition, fill, prune};
use crate::apply::StructuralType;
use crate::faults::Faults;
use crate::object::Object;
use crate::resource::{Resource, api_version};
use crate::schema_rules::SchemaRules;

/// The schema of a version in the forms in which it is used.
pub(super) struct Compiled {
    pub schema: Schema,
    pub merging: StructuralType,
    pub rules: SchemaRules,
}

impl fmt::Debug for Compiled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Compiled")
    }
}

impl Definition {
    /// The `openAPIV3Schema` of a version that it wants served, as its users know it: null where there is none.
    pub fn served_schema(&self, version: &str) -> Option<Value> {
        let place = self.versions.iter().position(|known| known.name == version && known.served)?;
        let schema = schema_in(&self.source, place).unwrap_or_default();
        Some(if self.preserves_unknown { Value::Null } else { schema })
    }

    /// The schema of one of its versions.
    pub(super) fn compiled(&self, version: usize) -> &Compiled {
        self.compiled[version].get_or_init(|| {
            let mut given = schema_in(&self.source, version).unwrap_or_default();
            if self.preserves_unknown || given.is_null() {
                given["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            Compiled {
                // Faults of a rule are reported to the writer of the definition.
                rules: SchemaRules::compile(&given, "", &mut Faults::default()),
                merging: StructuralType::of_resource(&given),
                schema: Schema::of_resource(&given),
            }
        })
    }

    /// The place of the version of that `apiVersion`.
    pub(super) fn version_of(&self, api_version: &str) -> Option<usize> {
        let (group, name) = api_version.split_once('/')?;
        let place = self.versions.iter().position(|version| version.name == name);
        place.filter(|_| group == self.group)
    }

    /// Takes what the schema of an object's own version doesn't have out of it.
    pub fn prune(&self, object: &mut Object) {
        if let Some(version) = self.version_of(object.api_version()) {
            prune::prune(&self.compiled(version).schema, &mut object.0, 0);
        }
        object.ensure_metadata();
    }

    /// Brings what was written under an older schema into the form that its own version has now.
    pub fn refresh(&self, object: &mut Object) {
        self.prune(object);
        if let Some(version) = self.version_of(object.api_version()) {
            // What lies there is read all the same, with as many defaults as fit.
            let schema = &self.compiled(version).schema;
            fill::drop_nulls(schema, &mut object.0);
            let _ = fill::fill(schema, &mut object.0);
            object.ensure_metadata();
        }
    }

    /// An object as another version that has the same form.
    pub fn relabel(&self, object: &mut Object, api_version: &str) {
        object.0.insert("apiVersion".into(), api_version.into());
        self.prune(object);
    }
}

impl Custom {
    /// Brings a stored object of any version into the form of this one, where no webhook converts.
    pub(crate) fn serve(&self, resource: &Resource, object: &mut Object) {
        let (definition, wanted) = (&self.definition, resource.api_version());
        definition.refresh(object);
        if object.api_version() != wanted {
            let is_known = definition.version_of(object.api_version()).is_some();
            definition.relabel(object, &wanted);
            if !is_known {
                definition.refresh(object);
            }
        }
    }

    /// Brings an object into the version that it is stored in, where no webhook converts.
    pub(crate) fn store(&self, object: &mut Object) {
        let wanted = self.storage_api_version();
        if object.api_version() != wanted {
            self.definition.relabel(object, &wanted);
            // What lies in its own version is served as it lies, so that it has its defaults from the beginning.
            self.definition.refresh(object);
        }
    }

    /// The group and version that objects are stored in.
    pub fn storage_api_version(&self) -> String {
        api_version(self.definition.group, self.definition.storage_version())
    }

    /// The fields that objects of its version can be selected by.
    pub fn selectable_fields(&self) -> impl Iterator<Item = &str> {
        self.version().selectable.iter().map(|(name, _)| name.as_str())
    }

    /// The `openAPIV3Schema` of its version, as the definition has it; null where there is none.
    pub fn open_api_schema(&self) -> Value {
        schema_in(&self.definition.source, self.version).unwrap_or_default()
    }
}
