//! The schemas of what every object has, and of what is no kind's own.

use std::sync::OnceLock;

use crate::schema::{NamedSchema, Schemas, Untold};

/// The published schemas, one a line, by name. The crate `api` has the script that makes them.
const PUBLISHED: &str = include_str!("../schemas/schemas.json");
/// Their fields that are pointers in Go.
const POINTERS: &str = include_str!("../schemas/pointers.txt");
/// Their fields whose types have names of their own in Go.
const NAMED: &str = include_str!("../schemas/named.txt");

/// The schema of every object's metadata.
pub const OBJECT_META: NamedSchema =
    NamedSchema::of(meta_schemas, "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");

/// The schemas of `k8s.io/apimachinery`, to which those of kinds refer.
pub fn meta_schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| Schemas::new(PUBLISHED, (POINTERS, NAMED), &Meta, None))
}

/// What these schemas don't say.
struct Meta;

impl Untold for Meta {
    fn nulls(&self, schema: &str) -> &'static [&'static str] {
        match schema {
            "io.k8s.apimachinery.pkg.apis.meta.v1.Condition" => &["lastTransitionTime"],
            _ => &[],
        }
    }

    // Templates of claims may say nothing of an object's metadata but labels and annotations.
    fn sees_empty(&self, schema: &str, field: &str) -> &'static [&'static str] {
        match field {
            _ if !schema.ends_with(".ObjectMeta") => &[],
            "finalizers" => &["spec.metadata.finalizers", "volumeClaimTemplate.metadata.finalizers"],
            "managedFields" => &["spec.metadata.managedFields", "volumeClaimTemplate.metadata.managedFields"],
            "ownerReferences" => {
                &["spec.metadata.ownerReferences", "volumeClaimTemplate.metadata.ownerReferences"]
            }
            _ => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_can_be_read() {
        let all = meta_schemas();
        for name in all.names() {
            assert!(all.published(name).is_some(), "{name} is out of order, or no JSON");
            assert!(all.named(name).is_none_or(|schema| schema.name == name), "{name}");
        }
        let metadata = OBJECT_META.get().unwrap();
        assert!(metadata.field("ownerReferences").unwrap().patch.merge);
        assert!(metadata.field("deletionGracePeriodSeconds").unwrap().is_pointer);
    }
}
