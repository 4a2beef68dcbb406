//! An object's metadata: whole, as the API has it, or as much of it as is kept of kinds of which there are many.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};
use store::Revision;

use crate::copies::{shared_labels, shared_owners, shared_text};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// What is read of any object's metadata.
pub trait Meta {
    /// The object's name; empty for one that has none.
    fn name(&self) -> &str;

    /// Its namespace; empty for cluster-scoped ones.
    fn namespace(&self) -> &str;

    /// Its uid; none for one that was never stored.
    fn uid(&self) -> Option<&str>;

    /// Its labels.
    fn labels(&self) -> Option<&Labels>;

    /// Its annotations, as far as they are kept.
    fn annotations(&self) -> Option<&BTreeMap<String, String>>;

    /// Its owners.
    fn owners(&self) -> &[OwnerReference];

    /// What must happen before it goes.
    fn finalizers(&self) -> &[String];

    /// When somebody began to delete it.
    fn deletion_timestamp(&self) -> Option<&Time>;

    /// How often what it asks for changed.
    fn generation(&self) -> Option<i64>;

    /// The revision that wrote it, as the API has it; none for one that was never stored.
    fn resource_version(&self) -> Option<String>;

    /// It was read from the store, where this revision wrote it.
    fn stored_by(&mut self, revision: Revision);
}

/// What is kept of an object's metadata: all but what its managers say, and of its annotations those that its kind reads. Fields
/// have the API's names; what many objects have in common they share.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The object's name.
    pub name: Option<String>,
    /// Its namespace; none for cluster-scoped ones.
    pub namespace: Option<Arc<str>>,
    /// Its uid.
    pub uid: Option<String>,
    /// The revision that wrote it.
    pub revision: Option<Revision>,
    /// Its labels.
    pub labels: Option<Arc<Labels>>,
    /// Those of its annotations that are read.
    pub annotations: Option<Arc<Labels>>,
    /// Its owners.
    pub owner_references: Option<Arc<[OwnerReference]>>,
    /// What must happen before it goes.
    pub finalizers: Option<Vec<String>>,
    /// When it was made.
    pub creation_timestamp: Option<Time>,
    /// When somebody began to delete it.
    pub deletion_timestamp: Option<Time>,
    /// How many seconds it has from then on.
    pub deletion_grace_period_seconds: Option<i64>,
    /// How often what it asks for changed.
    pub generation: Option<i64>,
}

/// What both forms of metadata say alike: their fields differ in how they are owned, not in what they are borrowed as.
macro_rules! same_fields {
    () => {
        fn name(&self) -> &str {
            self.name.as_deref().unwrap_or_default()
        }

        fn namespace(&self) -> &str {
            self.namespace.as_deref().unwrap_or_default()
        }

        fn uid(&self) -> Option<&str> {
            self.uid.as_deref()
        }

        fn owners(&self) -> &[OwnerReference] {
            self.owner_references.as_deref().unwrap_or_default()
        }

        fn finalizers(&self) -> &[String] {
            self.finalizers.as_deref().unwrap_or_default()
        }

        fn deletion_timestamp(&self) -> Option<&Time> {
            self.deletion_timestamp.as_ref()
        }

        fn generation(&self) -> Option<i64> {
            self.generation
        }
    };
}

impl Meta for Metadata {
    same_fields!();

    fn labels(&self) -> Option<&Labels> {
        self.labels.as_deref()
    }

    fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.annotations.as_deref()
    }

    fn resource_version(&self) -> Option<String> {
        self.revision.map(|revision| revision.to_string())
    }

    fn stored_by(&mut self, revision: Revision) {
        self.revision = Some(revision);
    }
}

impl Meta for ObjectMeta {
    same_fields!();

    fn labels(&self) -> Option<&Labels> {
        self.labels.as_ref()
    }

    fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.annotations.as_ref()
    }

    fn resource_version(&self) -> Option<String> {
        self.resource_version.clone()
    }

    fn stored_by(&mut self, revision: Revision) {
        self.resource_version = Some(revision.to_string());
        // Nobody in here reads who manages which field, and it can be larger than the object.
        self.managed_fields = None;
    }
}

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
    labels: Option<Labels>,
    annotations: Option<A>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    deletion_grace_period_seconds: Option<i64>,
    generation: Option<i64>,
}

/// What is kept of an object's metadata, for `#[serde(deserialize_with)]`; the rest is passed over.
///
/// # Errors
/// If it is no metadata.
pub fn metadata<'de, D: Deserializer<'de>, A: Annotations>(from: D) -> Result<Metadata, D::Error> {
    let read = Read::<A>::deserialize(from)?;
    Ok(Metadata {
        name: read.name,
        namespace: read.namespace.as_deref().map(shared_text),
        uid: read.uid,
        revision: None,
        labels: read.labels.map(shared_labels),
        annotations: read.annotations.and_then(A::kept).map(shared_labels),
        owner_references: read.owner_references.filter(|owners| !owners.is_empty()).map(shared_owners),
        finalizers: read.finalizers,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        deletion_grace_period_seconds: read.deletion_grace_period_seconds,
        generation: read.generation,
    })
}

/// Makes a struct with the field `metadata` of type [`Metadata`] a kind that can be read from the store (`Kind`): group, version,
/// kind, resource and scope of the API's own.
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
            type Ty = $crate::Metadata;

            fn metadata(&self) -> &Self::Ty {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut Self::Ty {
                &mut self.metadata
            }
        }
    };
}
