//! What decides the class of a request.

/// A request as far as schemas look at it.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The name of the user who makes it.
    pub user: &'a str,
    /// The groups that the user belongs to.
    pub groups: &'a [String],
    /// What is to be done, such as `list`; for a path the method in small letters.
    pub verb: &'a str,
    /// With what.
    pub target: Target<'a>,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// Objects of a resource.
    Objects {
        /// Empty for the core group.
        group: &'a str,
        /// The plural, such as `pods`.
        resource: &'a str,
        /// Empty for the objects themselves.
        subresource: &'a str,
        /// Empty for the whole cluster.
        namespace: &'a str,
        /// Empty for more than one object, and for one that has no name yet.
        name: &'a str,
    },
    /// A path that is no resource's, such as `/healthz`.
    Path(&'a str),
}

impl<'a> Request<'a> {
    /// The namespace that it is of: a Namespace is of itself.
    pub(crate) fn namespace(&self) -> &'a str {
        match self.target {
            Target::Objects { group: "", resource: "namespaces", name, .. } => name,
            Target::Objects { namespace, .. } => namespace,
            Target::Path(_) => "",
        }
    }
}
