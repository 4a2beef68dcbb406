//! What carries callers of services to those who serve them: one trait, of which the in-process proxy is the first
//! implementation.

use futures::future::BoxFuture;

use crate::ServiceChange;

/// Carries callers of services to their endpoints.
///
/// It begins with nothing. The first call has all that there is: what a former life left behind and isn't in it can go.
/// From then on each call has what differs, so that its work follows what changed and not what exists. A backend decides
/// without I/O what a change means for it (compare [`Services::apply`](crate::Services::apply)) and then does that.
pub(crate) trait ServiceBackend: Send {
    /// Takes changes in, in this order. It is called again soon, maybe without changes, if something is left to do.
    fn apply<'a>(&'a mut self, changes: &'a [ServiceChange]) -> BoxFuture<'a, Outcome>;
}

/// How far a backend came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it is in effect.
    Done,
    /// Some of it was refused, by the system for example; it may work later.
    Left,
}
