//! What the API serves: resources and their subresources.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use crate::custom::Custom;
use crate::rules::Rules;
use crate::schema::NamedSchema;

/// A kind of object that the API serves, as discovery tells it.
#[derive(Clone)]
pub struct Resource {
    /// The API group, empty for core.
    pub group: &'static str,
    /// The version.
    pub version: &'static str,
    /// The kind, such as `Pod`.
    pub kind: &'static str,
    /// The resource's name in paths, such as `pods`.
    pub plural: &'static str,
    /// Its name for one, such as `pod`.
    pub singular: &'static str,
    /// Whether its objects lie in namespaces.
    pub namespaced: bool,
    /// Abbreviations, such as `po`.
    pub short_names: &'static [&'static str],
    /// Groups of resources for `kubectl get`, such as `all`.
    pub categories: &'static [&'static str],
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// Its subresources, in the order of their names.
    pub subresources: &'static [Subresource],
    /// The hash of group, version and kind of the stored form, as upstream publishes it; empty for what is
    /// answered and not stored.
    pub storage_version_hash: &'static str,
    /// Whether `metadata.generation` counts the changes of what its objects ask for.
    pub keeps_generation: bool,
    /// Its schema, with the name that OpenAPI documents give it.
    pub schema: NamedSchema,
    /// What the schema can't say.
    pub rules: &'static dyn Rules,
    /// What a CustomResourceDefinition says of it, where it comes from one.
    pub custom: Option<Arc<Custom>>,
}

/// A part of an object with a path, a kind and verbs of its own.
#[derive(Debug)]
pub struct Subresource {
    /// The name in the path, such as `status`.
    pub name: &'static str,
    /// The group of its kind, where it differs from the resource's; else empty.
    pub group: &'static str,
    /// The version of its kind, likewise.
    pub version: &'static str,
    /// The kind of its bodies.
    pub kind: &'static str,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Resource({}, {})", self.api_version(), self.plural)
    }
}

impl PartialEq for Resource {
    fn eq(&self, other: &Self) -> bool {
        (self.group, self.version, self.plural) == (other.group, other.version, other.plural)
    }
}

impl Resource {
    /// Group and version as objects name them: `v1`, `apps/v1`.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }

    /// Whether the resource has `verb`.
    pub fn has_verb(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether objects that are there may be asked for `verb`: what is being deleted together with its definition can
    /// still be changed, so that its finalizers can go.
    pub fn allows(&self, verb: &str) -> bool {
        self.has_verb(verb) || (self.custom.is_some() && matches!(verb, "patch" | "update"))
    }

    /// The kind of its lists.
    pub fn list_kind(&self) -> Cow<'static, str> {
        match self.custom() {
            Some(custom) => custom.list_kind().into(),
            None => format!("{}List", self.kind).into(),
        }
    }

    /// Whether a delete answers with the object that it deleted, not with a Status: upstream's
    /// `ReturnDeletedObject`.
    pub fn answers_deleted_object(&self) -> bool {
        self.rules.answers_deleted_object()
    }

    /// Group and plural under which its objects lie: its own, or those of the resource that it is another
    /// version of.
    pub fn stored_under(&self) -> (&'static str, &'static str) {
        self.rules.stored_as().map_or((self.group, self.plural), |stored| (stored.group, stored.plural))
    }

    /// The same objects in another version, where that is part of the program; itself in its own.
    pub fn in_version<'a>(&'a self, api_version: &str) -> Option<&'a Resource> {
        if self.api_version() == api_version { Some(self) } else { self.rules.in_version(api_version) }
    }

    /// What a CustomResourceDefinition says of it; nothing for a resource that is part of the program.
    pub fn custom(&self) -> Option<&Custom> {
        self.custom.as_deref()
    }

    /// Whether its objects may lie in another form than the one that is served, so that they have to be brought
    /// into it.
    pub fn is_converted(&self) -> bool {
        self.rules.stored_as().is_some() || self.custom.is_some()
    }

    /// Whether a delete that says nothing of dependents leaves them: upstream's
    /// `DefaultGarbageCollectionPolicy`.
    pub fn orphans_by_default(&self) -> bool {
        self.rules.orphans_by_default()
    }

    /// Whether a PUT must name the version that it replaces: the opposite of upstream's
    /// `AllowUnconditionalUpdate`.
    pub fn demands_version(&self) -> bool {
        self.custom.is_some() || self.rules.demands_version()
    }

    /// Whether an object without a name gets one, even where it says nothing to begin it with.
    pub fn names_itself(&self) -> bool {
        self.rules.names_itself()
    }

    /// Whether a PUT makes what is not there: upstream's `AllowCreateOnUpdate`.
    pub fn creates_on_update(&self) -> bool {
        self.rules.creates_on_update()
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|s| s.name == name)
    }
}

/// Group and version as objects name them: `v1`, `apps/v1`.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}
