//! What a failed pod means for its Job: `matchPodFailurePolicy` of `pkg/controller/job/pod_failure_policy.go` (KEP-3329).

use k8s_openapi::api::batch::v1::{
    PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern,
};
use serde_json::Value;

/// What is to be done about a pod that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Consequence {
    /// It counts towards the limit.
    Counts,
    /// It doesn't count.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed, for this reason.
    FailsJob(String),
}

impl Consequence {
    /// Whether the pod counts as failed.
    pub fn counts(&self) -> bool {
        *self != Consequence::Ignored
    }
}

/// The consequence of the first rule that a pod, as it is stored, meets.
pub(super) fn judge(policy: &PodFailurePolicy, pod: &Value) -> Consequence {
    let name = |field: &str| pod["metadata"][field].as_str().unwrap_or_default();
    let who = format!("{}/{}", name("namespace"), name("name"));
    for (at, rule) in policy.rules.iter().enumerate() {
        let action = rule.action.as_str();
        let matched = match (&rule.on_exit_codes, &rule.on_pod_conditions) {
            (Some(codes), _) => failed_container(codes, &pod["status"]).map(|(container, code)| {
                format!("Container {container} for pod {who} failed with exit code {code} matching {action} rule at index {at}")
            }),
            (None, Some(patterns)) => held_condition(patterns, &pod["status"])
                .map(|kind| format!("Pod {who} has condition {kind} matching {action} rule at index {at}")),
            (None, None) => None,
        };
        let Some(why) = matched else { continue };
        return match action {
            "FailJob" => Consequence::FailsJob(why),
            "FailIndex" => Consequence::FailsIndex,
            "Ignore" => Consequence::Ignored,
            _ => Consequence::Counts,
        };
    }
    Consequence::Counts
}

/// The first container that ended with a code that is meant, and the code.
fn failed_container<'a>(
    wanted: &PodFailurePolicyOnExitCodesRequirement,
    status: &'a Value,
) -> Option<(&'a str, i64)> {
    let lists = ["containerStatuses", "initContainerStatuses"];
    let containers = lists.into_iter().filter_map(|list| status[list].as_array()).flatten();
    containers
        .filter_map(|container| {
            let code = container.pointer("/state/terminated/exitCode")?.as_i64()?;
            Some((container["name"].as_str()?, code))
        })
        .filter(|(_, code)| *code != 0)
        .filter(|(name, _)| wanted.container_name.as_deref().is_none_or(|meant| meant == *name))
        .find(|(_, code)| {
            let among = wanted.values.iter().any(|value| i64::from(*value) == *code);
            match wanted.operator.as_str() {
                "In" => among,
                "NotIn" => !among,
                _ => false,
            }
        })
}

/// The first condition of the pod that meets a pattern.
fn held_condition<'a>(
    patterns: &[PodFailurePolicyOnPodConditionsPattern],
    status: &'a Value,
) -> Option<&'a str> {
    let conditions = status["conditions"].as_array()?.iter();
    let mut named = conditions.filter_map(|c| Some((c["type"].as_str()?, c["status"].as_str()?)));
    let meets = |(kind, status): &(&str, &str)| {
        patterns.iter().any(|p| p.type_ == *kind && p.status.as_deref().unwrap_or("True") == *status)
    };
    named.find(meets).map(|(kind, _)| kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rule_that_is_met_decides() {
        let policy = serde_json::from_value(json!({"rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": {"containerName": "main", "operator": "In", "values": [3, 42]}},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [9]}},
            {"action": "Ignore", "onExitCodes": {"operator": "In", "values": [9]}},
        ]}))
        .unwrap();
        let pod = |conditions: Value, ends: &[(&str, i32)]| {
            let ends: Vec<_> = ends
                .iter()
                .map(|(name, code)| json!({"name": name, "state": {"terminated": {"exitCode": code}}}))
                .collect();
            json!({"metadata": {"namespace": "n", "name": "p"},
                "status": {"conditions": conditions, "containerStatuses": ends}})
        };
        let why = "Container main for pod n/p failed with exit code 42 matching FailJob rule at index 1";
        for (pod, consequence) in [
            (
                pod(json!([{"type": "DisruptionTarget", "status": "True"}]), &[("main", 42)]),
                Consequence::Ignored,
            ),
            (
                pod(json!([{"type": "DisruptionTarget", "status": "False"}]), &[("main", 42)]),
                Consequence::FailsJob(why.into()),
            ),
            (pod(json!([]), &[("main", 0), ("side", 42)]), Consequence::FailsIndex),
            (pod(json!([]), &[("main", 1)]), Consequence::Counts),
            (pod(json!([]), &[("main", 9)]), Consequence::Ignored),
            (pod(json!([]), &[]), Consequence::Counts),
        ] {
            assert_eq!(judge(&policy, &pod), consequence, "{pod}");
        }
    }
}
