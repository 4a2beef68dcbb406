//! One rule of a role: what it allows, and whether rules allow all that another one does.
//!
//! Follows `pkg/apis/rbac/v1/evaluation_helpers.go` and `component-helpers/auth/rbac/validation` of upstream.

use serde::{Deserialize, Serialize};

use crate::{Attributes, Wanted};

/// A `PolicyRule`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// Such as `get`; `*` for all.
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    /// Groups of resources, empty for the core group; `*` for all.
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    /// Plurals, with a subresource behind a slash; `*` for all.
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    /// The objects that are meant; none for all.
    pub resource_names: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "nonResourceURLs")]
    /// Paths that are no resource's; `*` at the end stands for all that begin so.
    pub urls: Vec<String>,
}

impl Rule {
    /// Whether the rule allows it.
    pub fn allows(&self, wanted: &Wanted<'_>) -> bool {
        match wanted {
            Wanted::Object(attributes) => self.allows_object(attributes),
            Wanted::Path { verb, path } => {
                has(&self.verbs, verb) && self.urls.iter().any(|url| covers_path(url, path))
            }
        }
    }

    fn allows_object(&self, attributes: &Attributes<'_>) -> bool {
        let Attributes { verb, group, resource, subresource, name, .. } = *attributes;
        has(&self.verbs, verb)
            && has(&self.api_groups, group)
            && self.resources.iter().any(|rule| covers_resource(rule, resource, subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|known| known == name))
    }

    /// Whether `rules` together allow all that this one does.
    pub(crate) fn is_covered_by(&self, rules: &[Rule]) -> bool {
        let all_names = [String::new()];
        let names = if self.resource_names.is_empty() { &all_names[..] } else { &self.resource_names };
        let of_objects = self.verbs.iter().all(|verb| {
            self.api_groups.iter().all(|group| {
                self.resources.iter().all(|resource| {
                    names.iter().all(|name| rules.iter().any(|rule| rule.holds(verb, group, resource, name)))
                })
            })
        });
        let of_paths = self.verbs.iter().all(|verb| {
            self.urls.iter().all(|url| {
                let covers =
                    |rule: &Rule| has(&rule.verbs, verb) && rule.urls.iter().any(|own| covers_path(own, url));
                rules.iter().any(covers)
            })
        });
        of_objects && of_paths
    }

    /// Whether the rule holds one part of another: wildcards are words here, no name stands for all names.
    fn holds(&self, verb: &str, group: &str, resource: &str, name: &str) -> bool {
        let (plural, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        has(&self.verbs, verb)
            && has(&self.api_groups, group)
            && self.resources.iter().any(|own| covers_resource(own, plural, subresource))
            && (self.resource_names.is_empty() || self.resource_names.iter().any(|own| own == name))
    }
}

fn has(list: &[String], word: &str) -> bool {
    list.iter().any(|own| own == "*" || own == word)
}

fn covers_resource(rule: &str, resource: &str, subresource: &str) -> bool {
    if rule == "*" {
        return true;
    }
    match rule.split_once('/') {
        None => subresource.is_empty() && rule == resource,
        Some((plural, sub)) => {
            !subresource.is_empty() && sub == subresource && (plural == "*" || plural == resource)
        }
    }
}

fn covers_path(rule: &str, path: &str) -> bool {
    rule == path || rule.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rule(value: Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let wanted = |verb, resource, subresource, name| Attributes {
            verb,
            group: "",
            resource,
            subresource,
            namespace: "a",
            name,
            fields: "",
        };
        let pods = rule(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "*/scale"]}));
        let named =
            rule(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "resourceNames": ["x"]}));
        for (rule, verb, resource, subresource, name, expected) in [
            (&pods, "get", "pods", "", "p", true),
            (&pods, "list", "pods", "", "", false),
            (&pods, "get", "pods", "log", "p", false),
            (&pods, "get", "services", "scale", "p", true),
            (&named, "delete", "pods", "log", "x", true),
            (&named, "delete", "pods", "", "y", false),
            (&named, "list", "pods", "", "", false),
        ] {
            let wanted = Wanted::Object(wanted(verb, resource, subresource, name));
            assert_eq!(rule.allows(&wanted), expected, "{wanted:?}");
        }
        let url = rule(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/apis/*"]}));
        for (path, expected) in
            [("/healthz", true), ("/healthz/x", false), ("/apis/a", true), ("/apis", false)]
        {
            assert_eq!(url.allows(&Wanted::Path { verb: "get", path }), expected, "{path}");
        }
    }

    #[test]
    fn nobody_grants_more_than_rules_hold() {
        let own = [
            rule(json!({"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods", "configmaps"]})),
            rule(
                json!({"verbs": ["update"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}),
            ),
            rule(json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]})),
        ];
        for (granted, expected) in [
            (
                json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["y"]}),
                true,
            ),
            (json!({"verbs": ["list", "get"], "apiGroups": [""], "resources": ["configmaps"]}), true),
            (json!({"verbs": ["get"], "apiGroups": ["apps"], "resources": ["pods"]}), false),
            (json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"]}), false),
            (json!({"verbs": ["get"], "apiGroups": [""], "resources": ["*"]}), false),
            (json!({"verbs": ["update"], "apiGroups": [""], "resources": ["pods"]}), false),
            (
                json!({"verbs": ["update"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}),
                true,
            ),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/a/b"]}), true),
            (json!({"verbs": ["get"], "nonResourceURLs": ["/a/*"]}), true),
            (json!({"verbs": ["get"], "nonResourceURLs": ["*"]}), false),
        ] {
            assert_eq!(rule(granted.clone()).is_covered_by(&own), expected, "{granted}");
        }
    }
}
