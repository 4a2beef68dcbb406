//! What somebody wants to do, as far as it matters to whether they may.

/// What somebody wants to do with objects.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    /// Such as `get`, in small letters.
    pub verb: &'a str,
    /// Empty for the core group.
    pub group: &'a str,
    /// The plural, such as `pods`.
    pub resource: &'a str,
    /// Empty for the objects themselves.
    pub subresource: &'a str,
    /// Empty for the whole cluster.
    pub namespace: &'a str,
    /// Empty for more than one object, and for one that has no name yet.
    pub name: &'a str,
    /// The field selector of a list or a watch.
    pub fields: &'a str,
}

/// What somebody wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// Something with objects.
    Object(Attributes<'a>),
    /// Something with a path that is no resource's.
    Path {
        /// The method in small letters.
        verb: &'a str,
        /// Such as `/healthz`.
        path: &'a str,
    },
}

impl Wanted<'_> {
    /// The namespace that it is about; empty for the whole cluster.
    pub(crate) fn namespace(&self) -> &str {
        match self {
            Wanted::Object(attributes) => attributes.namespace,
            Wanted::Path { .. } => "",
        }
    }
}
