//! FlowSchemas: whether the priority level that each of them names is there.
//!
//! Follows the status of `k8s.io/apiserver/pkg/util/flowcontrol`.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::json;

use crate::plan::{Plan, merge_this};
use crate::view::View;

/// Says in a schema's condition `Dangling` whether its level is missing.
pub fn reconcile(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(schema) = view.flow_schemas.get("", name) else { return plan };
    let level = schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.as_str());
    let level = level.unwrap_or_default();
    let found = view.priority_levels.get("", level).is_some();
    let (status, reason, message) = if found {
        (
            "False",
            "Found",
            format!("references the PriorityLevelConfiguration object named {level:?} and it exists"),
        )
    } else {
        let what = format!(
            "references the PriorityLevelConfiguration object named {level:?} but there is no such object"
        );
        ("True", "NotFound", what)
    };
    let conditions = schema.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let known = conditions.into_iter().find(|condition| condition.type_.as_deref() == Some("Dangling"));
    if known.is_some_and(|known| {
        known.status.as_deref() == Some(status) && known.reason.as_deref() == Some(reason)
    }) {
        return plan;
    }
    let condition = json!({
        "type": "Dangling", "status": status, "reason": reason, "message": format!("This FlowSchema {message}"),
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    plan.write(merge_this(schema.as_ref(), "status", json!({"status": {"conditions": [condition]}})));
    plan
}

/// Whether a schema names that level.
pub fn is_of(schema: &FlowSchema, level: &PriorityLevelConfiguration) -> bool {
    let named = schema.spec.as_ref().map(|spec| &spec.priority_level_configuration.name);
    named.is_some() && named == level.metadata.name.as_ref()
}
