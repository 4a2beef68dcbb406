//! The end of a definition: first its objects go, then it does.
//!
//! Follows upstream's finalizer controller of apiextensions-apiserver.

use std::sync::Arc;

use access::UserInfo;
use machinery::{Definition, Status};
use objects::{Named, Propagation};
use serde_json::json;
use store::KeyRange;

use super::driver::{USER, change, write_status};
use crate::registry::{DeleteOptions, Freshness, Registry};

/// How many objects are deleted before other definitions get their turn, so that none waits for one with many.
const BURST: usize = 256;

/// Does what comes next for a definition that is being deleted.
pub(super) async fn go_on(
    registry: &Registry,
    definition: &Arc<Definition>,
    now: &str,
) -> Result<(), Status> {
    if let Some(conditions) = definition.deleting_conditions(now) {
        return write_status(registry, definition, &json!({ "conditions": conditions })).await;
    }
    let Some(resource) = definition.storage_resource() else { return Ok(()) };
    // Nothing new is made of its kind since it is marked: what a read shows from now on is all that there is.
    let state = registry.state(Freshness::Newest).await?;
    let range = KeyRange::prefix(objects::kind_prefix(resource.group, resource.plural));
    let mut left = state.range(&range).peekable();
    if left.peek().is_none() {
        return change(registry, definition, "", &|object| {
            let others: Vec<String> = object
                .finalizers()
                .iter()
                .filter(|f| **f != Definition::CLEANUP)
                .map(|f| f.to_string())
                .collect();
            object.set_meta("finalizers", others);
        })
        .await;
    }
    let who = UserInfo::in_process(USER);
    let options = DeleteOptions { propagation: Some(Propagation::Background), ..DeleteOptions::default() };
    for kv in left.filter(|kv| !is_going(&kv.value.bytes())).take(BURST) {
        let Some(place) = objects::parse(&kv.key) else { continue };
        let named = Named { resource: &resource, namespace: place.namespace, name: place.name };
        match registry.delete(&who, &named, &options).await {
            Err(status) if status.code != 404 => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a stored object waits for its finalizers only.
fn is_going(value: &[u8]) -> bool {
    serde_json::from_slice::<machinery::Object>(value)
        .is_ok_and(|object| object.deletion_timestamp().is_some())
}
