//! Label and field selectors together.

use api::{FieldSelector, LabelSelector, Object, Resource, Status};
use store::KeyValue;

use super::load;

/// Which objects are meant.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selection {
    pub(crate) fn parse(
        resource: &Resource,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels.unwrap_or_default())?;
        let fields = FieldSelector::parse(resource, fields.unwrap_or_default())?;
        Ok(Selection { labels, fields })
    }

    /// Whether it means all objects: then none has to be parsed.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The only name that can match, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// Whether a stored object is meant.
    pub(crate) fn matches_stored(&self, kv: &KeyValue) -> bool {
        self.is_everything() || load(kv).is_ok_and(|object| self.matches(&object))
    }
}
