//! Taking a machine's certificates back, where another one takes its place.

use machinery::{Object, Status};
use objects::{TypedRef, Write, Writer};
use serde_json::Value;
use server::RevocationList;

/// Who keeps the list: a part of the cluster.
pub(super) const USER: &str = "system:kube-controller-manager";

/// An object of the core group.
pub(super) fn object_of(kind: &str, namespace: &str, name: &str) -> TypedRef {
    TypedRef {
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

/// Merges an entry into the list of what was taken back, which is made where there is none.
///
/// # Errors
/// What the API refuses it with.
pub(super) async fn merge(writer: &dyn Writer, entry: Value) -> Result<(), Status> {
    let merge = || {
        let subject = object_of("ConfigMap", RevocationList::NAMESPACE, RevocationList::NAME);
        Write::Merge { subject, subresource: "", patch: entry.clone() }
    };
    match writer.write(USER, merge()).await {
        Err(status) if status.code == 404 => {}
        merged => return merged.map(drop),
    }
    // Somebody else may make it just now.
    if let Some(object) = Object::from_value(RevocationList::object()) {
        match writer.write(USER, Write::Create(object)).await {
            Err(status) if status.code != 409 => return Err(status),
            _ => {}
        }
    }
    writer.write(USER, merge()).await.map(drop)
}
