//! Custom resources: what a CustomResourceDefinition says of its kind, and what that means for its objects.
//!
//! Follows `k8s.io/apiextensions-apiserver`. A definition's schemas are read when its objects are first touched.

mod approval;
mod columns;
mod conversion;
mod defaults;
mod definition;
mod fill;
mod format;
mod intern;
mod lists;
mod naming;
mod object;
mod pattern;
mod prune;
mod review;
mod scale;
mod schema;
mod validate;
mod versions;

use std::fmt;
use std::sync::Arc;

use self::definition::Version;
use self::versions::Compiled;
use crate::apply::StructuralType;

pub use approval::Approval;
pub use conversion::Conversion;
pub use defaults::validate_defaults;
pub use definition::Definition;
pub use definition::compare_versions;
pub use format::is_known as is_known_format;
pub use pattern::compile as compile_pattern;
pub use review::ConversionReview;

/// A custom resource: one version of a definition.
pub struct Custom {
    definition: Arc<Definition>,
    version: usize,
    /// What the stored form of its objects begins with, in this version.
    head: String,
}

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Custom({}, {})", self.definition.name(), self.version().name)
    }
}

impl Custom {
    fn new(definition: Arc<Definition>, version: usize) -> Self {
        let head = head(&definition, definition.versions[version].name);
        Custom { definition, version, head }
    }

    /// The definition that it comes from.
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    /// The warning for its users if its version is deprecated.
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

    /// Whether a stored value lies there as it would be stored now.
    pub fn is_in_storage_version(&self, stored: &[u8]) -> bool {
        stored.starts_with(head(&self.definition, self.definition.storage_version()).as_bytes())
    }

    pub(crate) fn merging(&self) -> &StructuralType {
        &self.compiled().merging
    }

    /// The types of another version; nothing if there is no such version.
    pub(crate) fn merging_in(&self, api_version: &str) -> Option<&StructuralType> {
        let version = self.definition.version_of(api_version)?;
        Some(&self.definition.compiled(version).merging)
    }

    fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }

    fn compiled(&self) -> &Compiled {
        self.definition.compiled(self.version)
    }
}

/// What stored objects of a version begin with.
fn head(definition: &Definition, version: &str) -> String {
    format!(r#"{{"kind":"{}","apiVersion":"{}/{version}","#, definition.names.kind, definition.group)
}
