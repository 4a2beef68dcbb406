//! The APIService of every group and version that definitions add.
//!
//! Follows upstream's autoregistration (`pkg/controlplane/controller/crdregistration`).

use std::collections::BTreeSet;

use access::UserInfo;
use machinery::{Object, Status};
use objects::{Named, load};
use serde_json::{Value, json};
use store::{KeyRange, State};

use super::driver::USER;
use crate::catalog::Definitions;
use crate::registry::{DeleteOptions, Freshness, Registry};

const GROUP: &str = "apiregistration.k8s.io";
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

fn prefix() -> String {
    objects::kind_prefix(GROUP, "apiservices")
}

/// Whether an APIService changed since the definitions were looked after.
pub(super) fn touched(done: Option<&Definitions>, state: &State) -> bool {
    let Some(seen) = done.map(Definitions::seen) else { return true };
    let prefix = prefix();
    state.check_history(seen.next()).is_err()
        || state.events(seen.next()).any(|event| event.key().starts_with(prefix.as_bytes()))
}

/// Makes those that are missing, and deletes those that nothing asks for any more.
pub(super) async fn follow(registry: &Registry, definitions: &Definitions) -> Result<(), Status> {
    let built_in: BTreeSet<(&str, &str)> = api::resources().map(|r| (r.group, r.version)).collect();
    let living = definitions.iter().filter(|definition| !definition.is_terminating());
    let wanted: BTreeSet<(&str, &str)> = living
        .flat_map(|definition| definition.served_versions().map(|version| (definition.group(), version)))
        .filter(|wanted| !built_in.contains(wanted))
        .collect();
    let state = registry.state(Freshness::Any).await?;
    let missing = wanted.iter().filter(|(group, version)| {
        state.get(objects::key(GROUP, "apiservices", "", &format!("{version}.{group}")).as_bytes()).is_none()
    });
    let missing: Vec<Object> = missing.filter_map(|(group, version)| service(group, version)).collect();
    if !missing.is_empty() {
        registry.ensure(missing).await?;
    }
    let resource = api::resource(GROUP, "v1", "apiservices")
        .ok_or_else(|| Status::internal("API services are not served"))?;
    let who = UserInfo::in_process(USER);
    for kv in state.range(&KeyRange::prefix(prefix())) {
        let found = load(kv)?;
        let text = |field: &str| found.pointer(field).and_then(Value::as_str).unwrap_or_default();
        let place = (text("/spec/group"), text("/spec/version"));
        if found.labels().get(MANAGED) != Some(&"true") || wanted.contains(&place) {
            continue;
        }
        let named = Named { resource, namespace: "", name: found.name() };
        let options = DeleteOptions { uid: Some(found.uid().to_owned()), ..DeleteOptions::default() };
        match registry.delete(&who, &named, &options).await {
            Err(status) if !matches!(status.code, 404 | 409) => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

fn service(group: &str, version: &str) -> Option<Object> {
    Object::from_value(json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: "true"}},
        "spec": {
            "group": group, "version": version, "groupPriorityMinimum": 1000, "versionPriority": 100,
        },
    }))
}
