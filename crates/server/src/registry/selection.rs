//! Label and field selectors together.

use machinery::{FieldSelector, LabelSelector, Object, Resource, Selectable, Status};
use store::KeyValue;

/// Which objects are meant.
#[derive(Debug, Clone)]
pub(crate) struct Selection {
    labels: LabelSelector,
    fields: FieldSelector,
    /// What the two look at.
    part: Selectable,
}

impl Selection {
    pub(crate) fn parse(
        resource: &Resource,
        labels: Option<&str>,
        fields: Option<&str>,
    ) -> Result<Self, Status> {
        let labels = LabelSelector::parse(labels.unwrap_or_default())?;
        let fields = FieldSelector::parse(resource, fields.unwrap_or_default())?;
        Ok(Selection { labels, fields, part: Selectable::of(resource) })
    }

    /// Whether it means all objects: then none has to be parsed.
    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The only name that can match, if there is one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields.name()
    }

    /// The only node that what matches can be bound to, if there is one; empty where it must be bound to none.
    pub(crate) fn node(&self) -> Option<&str> {
        self.fields.value_at("/spec/nodeName")
    }

    /// Whether an object is meant, of which [`part`](Self::part) is enough.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(object) && self.fields.matches(object)
    }

    /// What is looked at of a stored object; nothing of one that is damaged.
    pub(crate) fn part(&self, kv: &KeyValue) -> Option<Object> {
        self.part.read(&kv.value.bytes()).ok()
    }

    /// Whether a stored object is meant.
    pub(crate) fn matches_stored(&self, kv: &KeyValue) -> bool {
        self.is_everything() || self.part(kv).is_some_and(|object| self.matches(&object))
    }
}
