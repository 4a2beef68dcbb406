//! Selectors of objects and of nodes, and tolerations, typed.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// Whether the labels meet a selector. An empty selector meets everything; an unknown operator nothing.
pub fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let label = |key: &String| labels.and_then(|labels| labels.get(key));
    let wanted = selector.match_labels.iter().flatten();
    let mut expressions = selector.match_expressions.iter().flatten();
    wanted.into_iter().all(|(key, value)| label(key) == Some(value))
        && expressions.all(|requirement| {
            let values = requirement.values.as_deref().unwrap_or_default();
            match (requirement.operator.as_str(), label(&requirement.key)) {
                ("In", Some(value)) => values.contains(value),
                ("NotIn", Some(value)) => !values.contains(value),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        })
}

/// Whether a node of this name and with these labels meets one of a selector's terms.
pub fn selects_node(selector: &NodeSelector, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    selector.node_selector_terms.iter().any(|term| node_meets(term, name, labels))
}

/// Whether a node of this name and with these labels meets a term of a node selector; its fields are `metadata.name` alone.
pub fn node_meets(term: &NodeSelectorTerm, name: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
    let (wanted, fields) = (term.match_expressions.iter().flatten(), term.match_fields.iter().flatten());
    // A term without any requirement means no node.
    let is_empty = wanted.clone().next().is_none() && fields.clone().next().is_none();
    let label = |key: &String| labels.and_then(|labels| labels.get(key)).map(String::as_str);
    !is_empty
        && wanted.into_iter().all(|requirement| holds(requirement, label(&requirement.key)))
        && fields
            .into_iter()
            .all(|requirement| holds(requirement, (requirement.key == "metadata.name").then_some(name)))
}

fn holds(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = || Some((value?.parse::<i64>().ok()?, values.first()?.parse::<i64>().ok()?));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.iter().any(|other| other == value)),
        "NotIn" => !value.is_some_and(|value| values.iter().any(|other| other == value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => number().is_some_and(|(value, bound)| value > bound),
        "Lt" => number().is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Whether a toleration takes away what a taint does (`Toleration.ToleratesTaint` of core/v1).
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "" | "Equal" => {
            !key.is_empty()
                && toleration.value.as_deref().unwrap_or_default()
                    == taint.value.as_deref().unwrap_or_default()
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn selectors_meet_labels_as_in_kubernetes() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let table: &[(Value, bool)] = &[
            (json!({}), true),
            (json!({"matchLabels": {"app": "web"}}), true),
            (json!({"matchLabels": {"app": "db"}}), false),
            (json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "web"]}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["web"]}]}), true),
            (json!({"matchExpressions": [{"key": "x", "operator": "Exists"}]}), false),
            (json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}), true),
            (json!({"matchExpressions": [{"key": "app", "operator": "Maybe"}]}), false),
        ];
        for (selector, expected) in table {
            let typed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(&typed, Some(&labels)), *expected, "{selector}");
        }
    }

    #[test]
    fn tolerations_cover_taints_as_in_kubernetes() {
        let taint = Taint { key: "k".into(), effect: "NoExecute".into(), ..Taint::default() };
        let table: &[(Value, bool)] = &[
            (json!({"operator": "Exists"}), true),
            (json!({"key": "k", "operator": "Exists"}), true),
            (json!({"key": "other", "operator": "Exists"}), false),
            (json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}), false),
            (json!({"key": "k"}), true),
            (json!({"key": "k", "value": "v"}), false),
            (json!({}), false),
        ];
        for (toleration, expected) in table {
            let typed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&typed, &taint), *expected, "{toleration}");
        }
    }
}
