//! A change as admission sees it.

use access::UserInfo;
use machinery::Object;
use objects::Named;
use serde_json::Value;
use store::State;

use crate::clock::Edge;

/// What is done to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Update,
    Delete,
    /// A stream into a pod, or a proxy.
    Connect,
}

/// A change as admission sees it, beside the object itself.
pub(crate) struct AdmissionRequest<'a> {
    pub(crate) who: &'a UserInfo,
    pub(crate) named: Named<'a>,
    /// Such as `status`, or empty for the object itself.
    pub(crate) subresource: &'a str,
    pub(crate) operation: Operation,
    pub(crate) dry_run: bool,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions`, as far as they matter to others.
    pub(crate) options: Value,
    /// The state that the change is decided on.
    pub(crate) state: &'a State,
    /// The clock and the randomness that it is decided by.
    pub(crate) edge: &'a dyn Edge,
}

/// What a change makes of an object: nothing is left of it, or nothing was there.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome<'a> {
    pub(crate) new: Option<&'a Object>,
    pub(crate) old: Option<&'a Object>,
}
