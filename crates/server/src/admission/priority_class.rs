//! Priority classes: at most one is the default, and the system's stay.

use machinery::{Object, Status};
use objects::{Named, load};
use serde_json::Value;
use store::{KeyRange, State};

const SYSTEM: [&str; 2] = ["system-cluster-critical", "system-node-critical"];

/// 403 if the class would be a second default.
pub(super) fn check(named: &Named<'_>, object: &Object, state: &State) -> Result<(), Status> {
    if object.0.get("globalDefault") != Some(&Value::Bool(true)) {
        return Ok(());
    }
    let prefix = objects::kind_prefix(named.resource.group, named.resource.plural);
    for kv in state.range(&KeyRange::prefix(prefix)) {
        let other = load(kv)?;
        if other.name() != named.name && other.0.get("globalDefault") == Some(&Value::Bool(true)) {
            let why = format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name()
            );
            return Err(named.forbidden(&why));
        }
    }
    Ok(())
}

/// 403 for the classes that every cluster has.
pub(super) fn on_delete(named: &Named<'_>) -> Result<(), Status> {
    match SYSTEM.contains(&named.name) {
        true => Err(named.forbidden("this is a system priority class and cannot be deleted")),
        false => Ok(()),
    }
}
