//! Looks after definitions where this member leads: gives them their names and says that they are served, makes the
//! APIServices of their groups, and deletes the objects of those that go.

use std::sync::Arc;
use std::time::Duration;

use access::UserInfo;
use machinery::{Definition, Object, Status};
use objects::Named;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{api_services, cleanup};
use crate::catalog::Definitions;
use crate::registry::{Recorded, Registry, Update};

/// After a refused write: long enough for what stands in the way to change.
const PAUSE: Duration = Duration::from_millis(500);

/// The user as which the server writes of its own accord.
pub(super) const USER: &str = "system:apiserver";
/// The name by which its writes are recorded.
const MANAGER: &str = "kube-apiserver";

/// Looks after definitions whenever this member leads. Runs until the store ends.
pub(crate) async fn keep(registry: &Registry) {
    store::while_leading(&**registry.store(), || lead(registry)).await;
}

async fn lead(registry: &Registry) {
    let mut states = registry.store().states();
    let mut done: Option<Arc<Definitions>> = None;
    loop {
        let state = states.borrow_and_update().clone();
        let definitions = registry.definitions_at(&state);
        let unchanged = done.as_ref().is_some_and(|done| done.is_same(&definitions));
        let going = definitions.iter().any(|definition| definition.is_terminating());
        let due = !unchanged || going || api_services::touched(done.as_deref(), &state);
        if due && let Err(status) = look_after(registry, &definitions).await {
            tracing::warn!(%status, "a definition can't be looked after now");
            sleep(PAUSE).await;
            continue;
        }
        done = Some(definitions);
        if states.changed().await.is_err() {
            return;
        }
    }
}

/// One round over all definitions.
async fn look_after(registry: &Registry, definitions: &Definitions) -> Result<(), Status> {
    let now = registry.edge().time();
    let mut first_error = None;
    for definition in definitions.iter() {
        let result = if definition.is_terminating() {
            cleanup::go_on(registry, definition, &now).await
        } else if let Some(status) = definition.wanted_status(definitions.iter(), &now) {
            write_status(registry, definition, &status).await
        } else {
            Ok(())
        };
        // One that can't be helped doesn't keep the others waiting.
        first_error = first_error.or(result.err());
    }
    let result = api_services::follow(registry, definitions).await;
    first_error.or(result.err()).map_or(Ok(()), Err)
}

/// Writes fields of a definition's status, if it is still the one that was looked at.
pub(super) async fn write_status(
    registry: &Registry,
    definition: &Definition,
    status: &Value,
) -> Result<(), Status> {
    change(registry, definition, "status", &|object| {
        let place = object.0.entry("status").or_insert_with(|| json!({}));
        if let (Value::Object(place), Value::Object(status)) = (place, status) {
            place.extend(status.clone());
        }
    })
    .await
}

/// Changes a definition, if it is still the one that was looked at.
pub(super) async fn change(
    registry: &Registry,
    definition: &Definition,
    subresource: &str,
    edit: &(dyn Fn(&mut Object) + Send + Sync),
) -> Result<(), Status> {
    let resource = resource()?;
    let who = UserInfo::in_process(USER);
    let named = Named { resource, namespace: "", name: definition.name() };
    let change =
        Update { who: &who, named, subresource, dry_run: false, recorded: Recorded::Update(MANAGER) };
    let revision = definition.revision().to_string();
    let edited = |old: &Object| {
        let mut new = old.clone();
        new.set_meta("resourceVersion", revision.as_str());
        edit(&mut new);
        Ok(new)
    };
    match registry.change(&change, &edited).await {
        Ok(_) => Ok(()),
        // It has changed, which is news of its own.
        Err(status) if matches!(status.code, 404 | 409) => Ok(()),
        Err(status) => Err(status),
    }
}

fn resource() -> Result<&'static machinery::Resource, Status> {
    api::resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .ok_or_else(|| Status::internal("definitions are not served"))
}
