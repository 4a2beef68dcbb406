//! What kinds have in common of which only a part is kept in memory: their metadata, and what names them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};

/// Which annotations are kept: none, or a type that reads those that are.
pub trait Annotations: Default + for<'de> Deserialize<'de> {
    /// Those that were read.
    fn kept(self) -> Option<BTreeMap<String, String>>;
}

/// Keeps no annotation.
#[derive(Debug, Default, Deserialize)]
pub struct NoAnnotations {}

impl Annotations for NoAnnotations {
    fn kept(self) -> Option<BTreeMap<String, String>> {
        None
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", bound = "A: Annotations")]
struct Read<A> {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<A>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    generation: Option<i64>,
}

/// An object's metadata without what its managers say, for `#[serde(deserialize_with)]`; what isn't kept is passed over.
///
/// # Errors
/// If it is no metadata.
pub fn metadata<'de, D: Deserializer<'de>, A: Annotations>(from: D) -> Result<ObjectMeta, D::Error> {
    let read = Read::<A>::deserialize(from)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        labels: read.labels,
        annotations: read.annotations.and_then(A::kept),
        owner_references: read.owner_references,
        finalizers: read.finalizers,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        generation: read.generation,
        ..ObjectMeta::default()
    })
}

/// Makes a struct with the field `metadata` a kind that can be read from the store (`Kind`): group, version, kind,
/// resource and scope of the API's own.
#[macro_export]
macro_rules! thin_kind {
    ($kept:ty, $whole:ty) => {
        impl k8s_openapi::Resource for $kept {
            const API_VERSION: &'static str = <$whole as k8s_openapi::Resource>::API_VERSION;
            const GROUP: &'static str = <$whole as k8s_openapi::Resource>::GROUP;
            const KIND: &'static str = <$whole as k8s_openapi::Resource>::KIND;
            const VERSION: &'static str = <$whole as k8s_openapi::Resource>::VERSION;
            const URL_PATH_SEGMENT: &'static str = <$whole as k8s_openapi::Resource>::URL_PATH_SEGMENT;
            type Scope = <$whole as k8s_openapi::Resource>::Scope;
        }

        impl k8s_openapi::Metadata for $kept {
            type Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
