//! FlowSchemas: whether the priority level that each of them names is there.
//!
//! Follows the status of `k8s.io/apiserver/pkg/util/flowcontrol`.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use serde_json::json;

use objects::Change;

use crate::controller::{Controller, Due, Moment, Urgency, latest};
use crate::key::Key;
use crate::plan::{Plan, merge_this};
use crate::tables::Watches;
use crate::touched::Touched;
use crate::view::View;

/// Says of FlowSchemas whether their levels are there.
pub(crate) struct FlowSchemas;

impl Controller for FlowSchemas {
    fn name(&self) -> &'static str {
        "flow-schema"
    }

    fn component(&self) -> &'static str {
        "api-priority-and-fairness-config-consumer-v1"
    }

    fn urgency(&self) -> Urgency {
        Urgency::Upkeep
    }

    fn stays(&self) -> bool {
        true
    }

    fn watches(&self, watches: &mut Watches<'_>) {
        watches.table::<FlowSchema>();
        watches.table::<PriorityLevelConfiguration>();
    }

    fn all(&self, view: &View, due: &mut Due<'_>) {
        due.objects(view.table::<FlowSchema>().iter());
    }

    fn touched(&self, view: &View, change: &Touched, due: &mut Due<'_>) {
        due.changed::<FlowSchema>(change);
        let comes_or_goes =
            |change: &&Change<PriorityLevelConfiguration>| change.old.is_some() != change.new.is_some();
        if let Some(level) = change.of().filter(comes_or_goes).and_then(latest) {
            due.objects(view.table::<FlowSchema>().iter().filter(|schema| is_of(schema, level)));
        }
    }

    fn reconcile(&self, view: &View, key: &Key, moment: &Moment<'_>) -> Plan {
        reconcile(view, key.name(), moment.now.wall)
    }
}

/// Says in a schema's condition `Dangling` whether its level is missing.
fn reconcile(view: &View, name: &str, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(schema) = view.table::<FlowSchema>().get("", name) else { return plan };
    let level = schema.spec.as_ref().map(|spec| spec.priority_level_configuration.name.as_str());
    let level = level.unwrap_or_default();
    let found = view.table::<PriorityLevelConfiguration>().get("", level).is_some();
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
