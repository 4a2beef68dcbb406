//! Changes to objects, as data: what controllers, the scheduler and the agents ask for.

use futures::future::BoxFuture;
use machinery::{Object, Status};
use serde_json::Value;

use crate::{Kind, Meta, ObjectRef, Uid};

/// One object, named.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypedRef {
    /// Group and version, such as `v1` or `apps/v1`.
    pub api_version: String,
    /// The kind, such as `Pod`.
    pub kind: String,
    /// The namespace, empty for cluster-scoped kinds.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl TypedRef {
    /// The name of a stored object.
    pub fn of<T: Kind>(object: &T) -> Self {
        let metadata = object.metadata();
        TypedRef {
            api_version: T::API_VERSION.to_owned(),
            kind: T::KIND.to_owned(),
            namespace: metadata.namespace().to_owned(),
            name: metadata.name().to_owned(),
        }
    }
}

/// A change to one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Write {
    /// Makes an object; `apiVersion`, `kind`, name (or generateName) and namespace are in it.
    Create(Object),
    /// Replaces an object; if it names a resourceVersion, only that version.
    Update(Object),
    /// Replaces an object's status, likewise.
    UpdateStatus(Object),
    /// Merges `patch` into an object (RFC 7396); a resourceVersion in it is a precondition.
    Merge {
        /// Which object.
        subject: TypedRef,
        /// The subresource, such as `status`, or empty.
        subresource: &'static str,
        /// What to merge.
        patch: Value,
    },
    /// Deletes an object.
    Delete {
        /// Which object.
        subject: TypedRef,
        /// How.
        options: Delete,
    },
    /// Deletes a pod, if the disruption budget that covers it lets it go and it is still the pod of that uid: 429 if its budget forbids
    /// it, 409 if it is another pod.
    Evict {
        /// The pod.
        pod: ObjectRef,
        /// Its uid.
        uid: Uid,
    },
    /// Places a pod on a node, if it has none and is still the pod of that uid.
    Bind {
        /// The pod.
        pod: ObjectRef,
        /// Its uid.
        uid: Uid,
        /// The node's name.
        node: String,
    },
}

/// How to delete: `DeleteOptions` of meta/v1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delete {
    /// Only the object of this uid.
    pub uid: Option<String>,
    /// Only this version of it.
    pub resource_version: Option<String>,
    /// Seconds that the object may take to end; 0 is at once. Without it, the kind's own (pods: their spec's).
    pub grace_seconds: Option<u64>,
    /// What happens to its dependents.
    pub propagation: Option<Propagation>,
}

/// What happens to the dependents of a deleted object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They stay.
    Orphan,
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
}

/// Carries changes out with everything that a request from outside would meet: defaults, validation,
/// admission, resourceVersions, finalizers.
pub trait Writer: Send + Sync + 'static {
    /// Carries one change out in the name of `user`, such as `system:kube-scheduler`; the answer is the
    /// object as it is afterwards (as it was, if it is gone), for [`Write::Evict`] the eviction, and for [`Write::Bind`] the
    /// binding.
    fn write<'a>(&'a self, user: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>>;

    /// A token of a service account for a pod, asked for in the name of `user`; 404 where none are made.
    fn token<'a>(&'a self, _user: &'a str, request: TokenRequest) -> BoxFuture<'a, Result<String, Status>> {
        let refused = Status::not_found("", "serviceaccounts", &request.account);
        Box::pin(std::future::ready(Err(refused)))
    }
}

/// A question to the API: a path, and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    /// The path, as it is before anything in it is escaped.
    pub path: String,
    /// The query.
    pub query: Vec<(&'static str, String)>,
}

/// Answers what isn't in the state, such as what pods use, by the same rules as a request from outside.
pub trait Asker: Send + Sync + 'static {
    /// The answer to what `user` asks, an account such as `system:serviceaccount:kube-system:horizontal-pod-autoscaler`.
    fn ask<'a>(&'a self, user: &'a str, question: &'a Question) -> BoxFuture<'a, Result<Value, Status>>;
}

/// A request for a token of a service account, bound to a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The namespace of account and pod.
    pub namespace: String,
    /// The account's name.
    pub account: String,
    /// For whom the token is; empty for the API.
    pub audience: String,
    /// For how long, in seconds.
    pub seconds: i64,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid.
    pub pod_uid: String,
}
