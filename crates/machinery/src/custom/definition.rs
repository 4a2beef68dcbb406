//! What a stored CustomResourceDefinition says, as far as it is needed without looking into its schemas.

use std::cmp::Ordering;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::columns::Column;
use super::conversion::Conversion;
use super::versions::Compiled;
use super::{Approval, Custom, intern};
use crate::json_path::pointer_of;
use crate::resource::{Resource, api_version};
use crate::rules::PLAIN;
use crate::schema::NamedSchema;

/// A CustomResourceDefinition.
#[derive(Debug)]
pub struct Definition {
    pub(super) group: &'static str,
    pub(super) names: Names,
    pub(super) namespaced: bool,
    pub(super) preserves_unknown: bool,
    pub(super) versions: Vec<Version>,
    pub(super) conversion: Conversion,
    /// `metadata.name`.
    name: String,
    uid: String,
    generation: i64,
    revision: u64,
    /// The revision since which its spec is as it is, as far as is known.
    spec_revision: u64,
    established: bool,
    terminating: bool,
    /// `spec.names`
    pub(super) requested: Value,
    /// `status.acceptedNames`
    pub(super) accepted: Value,
    /// `status.conditions`
    pub(super) conditions: Vec<Value>,
    /// `api-approved.kubernetes.io`
    pub(super) approval: Option<String>,
    /// The stored bytes: schemas are read from them when somebody first needs one.
    pub(super) source: Bytes,
    /// The schemas of its versions, read when they are first needed.
    pub(super) compiled: Vec<OnceLock<Compiled>>,
}

/// What a definition calls its kind.
#[derive(Debug)]
pub(super) struct Names {
    pub plural: &'static str,
    pub singular: &'static str,
    pub kind: &'static str,
    pub list_kind: &'static str,
    pub short: &'static [&'static str],
    pub categories: &'static [&'static str],
}

/// One version of a definition.
#[derive(Debug)]
pub(super) struct Version {
    pub name: &'static str,
    pub served: bool,
    pub storage: bool,
    /// The warning for its users, if it is deprecated.
    pub warning: Option<String>,
    pub columns: Vec<Column>,
    /// Fields for field selectors: as the definition writes them, and as pointers.
    pub selectable: Vec<(String, String)>,
    pub has_status: bool,
    pub scale: Option<ScalePaths>,
}

/// Where an object has what its scale shows, as JSON pointers.
#[derive(Debug, PartialEq)]
pub(super) struct ScalePaths {
    pub spec: String,
    pub status: String,
    /// Empty where there is none.
    pub selector: String,
}

impl Definition {
    /// Reads a definition that was stored at `revision`. `before` is what is known of it from earlier.
    ///
    /// # Errors
    /// If the bytes are no CustomResourceDefinition.
    pub fn parse(
        source: Bytes,
        revision: u64,
        before: Option<&Definition>,
    ) -> Result<Self, serde_json::Error> {
        let Given { metadata, spec, status } = serde_json::from_slice(&source)?;
        let given: GivenNames = serde_json::from_str(spec.names_as_given.get())?;
        let has = |kind: &str| {
            status.conditions.iter().flatten().any(|c| c["type"] == kind && c["status"] == "True")
        };
        let names = Names {
            plural: intern::text(&given.plural),
            singular: intern::text(&given.singular),
            kind: intern::text(&given.kind),
            list_kind: intern::text(&given.list_kind),
            short: intern::list(&given.short_names),
            categories: intern::list(&given.categories),
        };
        let group = intern::text(&spec.group);
        let current = spec.versions.iter().filter(|version| version.served && !version.deprecated);
        let current = current.map(|version| version.name.clone()).min_by(|a, b| compare_versions(a, b));
        let versions: Vec<Version> = spec
            .versions
            .into_iter()
            .map(|version| version.read(group, names.kind, current.as_deref()))
            .collect();
        let same_spec =
            before.filter(|before| before.uid == metadata.uid && before.generation == metadata.generation);
        Ok(Definition {
            group,
            namespaced: spec.scope == "Namespaced",
            preserves_unknown: spec.preserve_unknown_fields,
            compiled: versions.iter().map(|_| OnceLock::new()).collect(),
            versions,
            conversion: Conversion::read(spec.conversion),
            established: has("Established"),
            terminating: has("Terminating") || metadata.deletion_timestamp.is_some(),
            spec_revision: same_spec.map_or(revision, |before| before.spec_revision),
            requested: serde_json::from_str(spec.names_as_given.get())?,
            accepted: status.accepted_names,
            conditions: status.conditions.unwrap_or_default(),
            approval: metadata.annotations.unwrap_or_default().remove(Approval::ANNOTATION),
            name: metadata.name,
            uid: metadata.uid,
            generation: metadata.generation,
            revision,
            names,
            source,
        })
    }

    /// Its name, such as `widgets.example.com`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The group of its kind.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// Its kind.
    pub fn kind(&self) -> &'static str {
        self.names.kind
    }

    /// Its kind's name in paths.
    pub fn plural(&self) -> &'static str {
        self.names.plural
    }

    /// The revision that it was read from.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The revision since which its spec is as it is: what was written later is as its schemas want it.
    pub fn spec_revision(&self) -> u64 {
        self.spec_revision
    }

    /// Whether it is being deleted: then nothing new is made of its kind.
    pub fn is_terminating(&self) -> bool {
        self.terminating
    }

    /// How objects get from one of its versions into another.
    pub fn conversion(&self) -> &Conversion {
        &self.conversion
    }

    /// The versions that it wants served, by name.
    pub fn served_versions(&self) -> impl Iterator<Item = &'static str> {
        self.versions.iter().filter(|version| version.served).map(|version| version.name)
    }

    /// The resource in the version that objects are stored in, whether that is served or not.
    pub fn storage_resource(self: &Arc<Self>) -> Option<Resource> {
        let index = self.versions.iter().position(|version| version.storage)?;
        Some(self.resource(index))
    }

    /// The name of the version that objects are stored in.
    pub(super) fn storage_version(&self) -> &'static str {
        self.versions.iter().find(|version| version.storage).map_or("", |version| version.name)
    }

    /// Its resources, one a version that is served; none until it is established.
    pub fn resources(self: &Arc<Self>) -> Vec<Arc<Resource>> {
        if !self.established {
            return Vec::new();
        }
        let served = (0..self.versions.len()).filter(|index| self.versions[*index].served);
        served.map(|index| Arc::new(self.resource(index))).collect()
    }

    fn resource(self: &Arc<Self>, index: usize) -> Resource {
        let version = &self.versions[index];
        let Names { plural, singular, kind, short, categories, .. } = self.names;
        let hash = storage_hash(self.group, self.storage_version(), kind);
        let reversed: Vec<&str> = self.group.rsplit('.').collect();
        Resource {
            group: self.group,
            version: version.name,
            kind,
            plural,
            singular,
            namespaced: self.namespaced,
            short_names: short,
            categories,
            verbs: if self.terminating { TERMINATING } else { ALL },
            subresources: intern::subresources(kind, version.has_status, version.scale.is_some()),
            storage_version_hash: intern::text(&hash),
            keeps_generation: true,
            schema: NamedSchema::unpublished(intern::text(&format!(
                "{}.{}.{kind}",
                reversed.join("."),
                version.name
            ))),
            rules: &PLAIN,
            custom: Some(Arc::new(Custom::new(self.clone(), index))),
        }
    }
}

/// In the order in which upstream lists them.
const ALL: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const TERMINATING: &[&str] = &["delete", "deletecollection", "get", "list", "watch"];

/// What discovery says of the stored form (upstream's `discovery.StorageVersionHash`).
fn storage_hash(group: &str, version: &str, kind: &str) -> String {
    use base64::Engine;
    let text = format!("{}/{kind}", api_version(group, version));
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(&digest.as_ref()[..8])
}

/// Versions as clients prefer them: stable ones, then beta, then alpha, newer ones first, other names last
/// (`k8s.io/apimachinery/pkg/version.CompareKubeAwareVersionStrings`).
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (rank(a), rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Major version, stability and minor version of names such as `v1`, `v2beta3`: stability counts first.
fn rank(version: &str) -> Option<(u8, u64, u64)> {
    let number = |text: &str| {
        let fits = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| fits)
    };
    let rest = version.strip_prefix('v')?;
    for (word, stability) in [("beta", 1), ("alpha", 0)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((stability, number(major)?, number(minor)?));
        }
    }
    Some((2, number(rest)?, 0))
}

#[derive(Deserialize)]
struct Given<'a> {
    metadata: Metadata,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    generation: i64,
    deletion_timestamp: Option<String>,
    annotations: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    group: String,
    #[serde(borrow, rename = "names")]
    names_as_given: &'a RawValue,
    scope: String,
    #[serde(borrow)]
    versions: Vec<GivenVersion<'a>>,
    conversion: Option<super::conversion::Given>,
    #[serde(default)]
    preserve_unknown_fields: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenNames {
    plural: String,
    #[serde(default)]
    singular: String,
    kind: String,
    #[serde(default)]
    list_kind: String,
    #[serde(default)]
    short_names: Vec<String>,
    #[serde(default)]
    categories: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GivenVersion<'a> {
    name: String,
    served: bool,
    storage: bool,
    #[serde(default)]
    deprecated: bool,
    deprecation_warning: Option<String>,
    #[serde(default)]
    subresources: Subresources,
    #[serde(default)]
    additional_printer_columns: Vec<super::columns::Given>,
    #[serde(default)]
    selectable_fields: Vec<Selectable>,
    #[serde(borrow)]
    schema: Option<GivenSchema<'a>>,
}

#[derive(Default, Deserialize)]
struct Subresources {
    status: Option<serde::de::IgnoredAny>,
    scale: Option<GivenScale>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct GivenScale {
    spec_replicas_path: String,
    status_replicas_path: String,
    label_selector_path: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selectable {
    json_path: String,
}

#[derive(Deserialize)]
struct GivenSchema<'a> {
    #[serde(borrow, rename = "openAPIV3Schema")]
    schema: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    conditions: Option<Vec<Value>>,
    accepted_names: Value,
}

impl GivenVersion<'_> {
    /// `current` is the newest version that isn't deprecated: users of an older one should turn to it.
    fn read(self, group: &str, kind: &str, current: Option<&str>) -> Version {
        let newer = current.filter(|version| compare_versions(version, &self.name).is_lt());
        let instead = newer.map(|version| format!("; use {group}/{version} {kind}")).unwrap_or_default();
        let usual = || format!("{group}/{} {kind} is deprecated{instead}", self.name);
        let warning = self.deprecated.then(|| self.deprecation_warning.clone().unwrap_or_else(usual));
        let scale = self.subresources.scale.map(|scale| ScalePaths {
            spec: pointer_of(&scale.spec_replicas_path),
            status: pointer_of(&scale.status_replicas_path),
            selector: pointer_of(&scale.label_selector_path),
        });
        let selectable = self.selectable_fields.into_iter().map(|field| {
            let name = field.json_path.strip_prefix('.').unwrap_or(&field.json_path).to_owned();
            (name, pointer_of(&field.json_path))
        });
        Version {
            name: intern::text(&self.name),
            served: self.served,
            storage: self.storage,
            warning,
            columns: super::columns::read(self.additional_printer_columns),
            selectable: selectable.collect(),
            has_status: self.subresources.status.is_some(),
            scale,
        }
    }
}

/// The schema of a version, as the stored definition has it.
pub(super) fn schema_in(source: &[u8], version: usize) -> Option<Value> {
    let given: Given<'_> = serde_json::from_slice(source).ok()?;
    let schema = given.spec.versions.into_iter().nth(version)?.schema?.schema?;
    serde_json::from_str(schema.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_clients_do() {
        let mut versions =
            ["foo10", "v1", "v10beta3", "foo1", "v2", "v11alpha2", "v3beta1", "v12alpha1", "v11beta2", "v10"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
        );
    }

    #[test]
    fn the_stored_form_has_upstreams_hash() {
        assert_eq!(storage_hash("example.com", "v1", "Gadget"), "ggWp2HxsL0Q=");
    }
}
