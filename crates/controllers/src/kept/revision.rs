//! What controllers read of ControllerRevisions.

use objects::{Metadata, NoAnnotations};
use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

use super::Template;
use crate::history;

/// A ControllerRevision (apps/v1): a template that a set of pods has, or had.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ControllerRevision {
    /// Its metadata, without what its managers say and without annotations.
    #[serde(default, deserialize_with = "objects::metadata::<_, NoAnnotations>")]
    pub metadata: Metadata,
    /// Its place in the history.
    #[serde(default)]
    pub revision: i64,
    /// The fingerprint of its template, as [`Template`] has it; nothing if it has none.
    #[serde(default, rename = "data", deserialize_with = "fingerprint")]
    pub template: Option<u64>,
}

objects::thin_kind!(ControllerRevision, k8s_openapi::api::apps::v1::ControllerRevision);

fn fingerprint<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let data = Value::deserialize(from)?;
    Ok(history::template(&data).map(|template| Template::of(&template).fingerprint))
}
