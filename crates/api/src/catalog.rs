//! Everything that is served at one moment: what is part of the program, and what definitions add.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use machinery::{Definition, Resource, compare_versions};

use crate::kinds::{resource, resource_of_kind, resources};

/// The resources that are served.
#[derive(Debug, Default)]
pub struct Catalog {
    /// In the order in which discovery lists them.
    custom: Vec<Arc<Resource>>,
    /// Path and hash of their OpenAPI v3 documents, made when they are first wanted.
    pub(crate) openapi: OnceLock<Vec<(String, String)>>,
}

impl Catalog {
    /// What the definitions add to what is part of the program; those that were in the catalog `before` are as they
    /// were there, with what is worked out about them. Where two want the same path, the first has it.
    pub fn new<'a>(definitions: impl IntoIterator<Item = &'a Arc<Definition>>, before: &Catalog) -> Self {
        let built_in: BTreeSet<(&str, &str)> = resources().map(|r| (r.group, r.version)).collect();
        let mut taken = BTreeSet::new();
        let of = |resource: &Resource, definition: &Arc<Definition>| {
            resource.custom().is_some_and(|custom| Arc::ptr_eq(custom.definition(), definition))
        };
        let all = definitions.into_iter().flat_map(|definition| {
            let known: Vec<Arc<Resource>> =
                before.custom.iter().filter(|resource| of(resource, definition)).cloned().collect();
            if known.is_empty() { definition.resources() } else { known }
        });
        // As upstream: a version that is part of the program is whole.
        let mut custom: Vec<Arc<Resource>> = all
            .filter(|r| !built_in.contains(&(r.group, r.version)))
            .filter(|r| taken.insert((r.group, r.version, r.plural)))
            .collect();
        custom.sort_by(|a, b| {
            let by_group = a.group.cmp(b.group).then_with(|| compare_versions(a.version, b.version));
            by_group.then_with(|| a.plural.cmp(b.plural))
        });
        Catalog { custom, openapi: OnceLock::new() }
    }

    /// The resource of a path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Resource> {
        resource(group, version, plural)
            .or_else(|| self.custom().find(|r| (r.group, r.version, r.plural) == (group, version, plural)))
    }

    /// The resource of an object's `apiVersion` and `kind`.
    pub fn resource_of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        resource_of_kind(api_version, kind).or_else(|| {
            let (group, version) = api_version.split_once('/')?;
            self.custom().find(|r| (r.group, r.version, r.kind) == (group, version, kind))
        })
    }

    /// All of them, in the order in which discovery lists them.
    pub fn resources(&self) -> impl Iterator<Item = &Resource> + Clone {
        let built_in = resources().map(|resource| -> &Resource { resource });
        built_in.chain(self.custom())
    }

    /// Those that definitions add.
    pub fn custom(&self) -> impl Iterator<Item = &Resource> + Clone {
        self.custom.iter().map(Arc::as_ref)
    }

    /// The groups, each once.
    pub(crate) fn groups(&self) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        self.resources().map(|r| r.group).filter(|group| seen.insert(*group)).collect()
    }

    /// The versions of a group, the preferred one first.
    pub(crate) fn versions(&self, group: &str) -> Vec<&str> {
        let mut seen = BTreeSet::new();
        let of_group = self.resources().filter(|r| r.group == group).map(|r| r.version);
        of_group.filter(|version| seen.insert(*version)).collect()
    }
}
