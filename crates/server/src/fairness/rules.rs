//! FlowSchemas: which requests each of them means.

use serde::Deserialize;

use crate::authorize::Wanted;
use crate::http::Identity;

const ACCOUNTS: &str = "system:serviceaccount:";

/// A FlowSchema as it is stored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) priority_level_configuration: Reference,
    pub(super) matching_precedence: i64,
    pub(super) distinguisher_method: Option<Method>,
    #[serde(deserialize_with = "or_none")]
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Reference {
    pub(super) name: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Method {
    #[serde(rename = "type")]
    pub(super) kind: Distinguisher,
}

/// What makes requests of one schema different flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Distinguisher {
    ByUser,
    ByNamespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Rule {
    #[serde(deserialize_with = "or_none")]
    subjects: Vec<Subject>,
    #[serde(deserialize_with = "or_none")]
    resource_rules: Vec<ResourceRule>,
    #[serde(deserialize_with = "or_none")]
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    user: Option<Reference>,
    group: Option<Reference>,
    service_account: Option<Account>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Account {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    #[serde(deserialize_with = "or_none")]
    namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

/// A list that may be absent or null.
fn or_none<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The namespace that a request is of: a Namespace is of itself.
pub(super) fn namespace<'a>(wanted: &Wanted<'a>) -> &'a str {
    match *wanted {
        Wanted::Object(asked) if (asked.group, asked.resource) == ("", "namespaces") => asked.name,
        Wanted::Object(asked) => asked.namespace,
        Wanted::Path { .. } => "",
    }
}

impl Rule {
    /// Whether the rule means what `who` wants.
    pub(super) fn means(&self, who: &Identity, wanted: &Wanted<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.means(who))
            && match wanted {
                Wanted::Object(_) => self.resource_rules.iter().any(|rule| rule.means(wanted)),
                Wanted::Path { verb, path } => {
                    self.non_resource_rules.iter().any(|rule| rule.means(verb, path))
                }
            }
    }
}

impl Subject {
    fn means(&self, who: &Identity) -> bool {
        if let Some(user) = &self.user {
            return user.name == "*" || user.name == who.user;
        }
        if let Some(group) = &self.group {
            return group.name == "*" || who.is_in(&group.name);
        }
        let account = who.user.strip_prefix(ACCOUNTS).and_then(|account| account.split_once(':'));
        let (Some(meant), Some((namespace, name))) = (&self.service_account, account) else { return false };
        meant.namespace == namespace && (meant.name == "*" || meant.name == name)
    }
}

impl ResourceRule {
    fn means(&self, wanted: &Wanted<'_>) -> bool {
        let Wanted::Object(asked) = wanted else { return false };
        let is_resource = |resource: &String| match resource.split_once('/') {
            None => resource == "*" || asked.subresource.is_empty() && resource == asked.resource,
            Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
        };
        any(&self.verbs, asked.verb)
            && any(&self.api_groups, asked.group)
            && self.resources.iter().any(is_resource)
            && match namespace(wanted) {
                "" => self.cluster_scope,
                namespace => any(&self.namespaces, namespace),
            }
    }
}

impl PathRule {
    fn means(&self, verb: &str, path: &str) -> bool {
        let is_url = |url: &String| match url.strip_suffix('*') {
            Some(start) => path.starts_with(start),
            None => url == path,
        };
        any(&self.verbs, verb) && self.urls.iter().any(is_url)
    }
}

fn any(list: &[String], wanted: &str) -> bool {
    list.iter().any(|item| item == "*" || item == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::authorize::Attributes;

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rules_mean_users_groups_and_accounts() {
        let who = |user: &str, group: &str| Identity::new(user, [group]);
        let account = "system:serviceaccount:ns:name";
        let get = Wanted::Path { verb: "get", path: "/healthz/ping" };
        for (subject, user, means) in [
            (json!({"kind": "User", "user": {"name": "a"}}), "a", true),
            (json!({"kind": "User", "user": {"name": "a"}}), "b", false),
            (json!({"kind": "User", "user": {"name": "*"}}), "b", true),
            (json!({"kind": "Group", "group": {"name": "g"}}), "b", true),
            (json!({"kind": "Group", "group": {"name": "h"}}), "b", false),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "*"}}),
                account,
                true,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "x"}}),
                account,
                false,
            ),
            (
                json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "ns", "name": "*"}}),
                "a",
                false,
            ),
        ] {
            let rule = rule(json!({
                "subjects": [subject], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["/healthz*"]}],
            }));
            assert_eq!(rule.means(&who(user, "g"), &get), means, "{user} {rule:?}");
        }
    }

    #[test]
    fn rules_mean_resources_in_namespaces_or_of_the_cluster() {
        let who = Identity::new("a", [""; 0]);
        let asked = |resource: &'static str, subresource: &'static str, namespace: &'static str| {
            Wanted::Object(Attributes {
                verb: "list",
                group: "",
                resource,
                subresource,
                namespace,
                name: "",
                fields: "",
            })
        };
        let of = |rules: serde_json::Value| {
            rule(
                json!({"subjects": [{"user": {"name": "*"}}], "resourceRules": [rules], "nonResourceRules": null}),
            )
        };
        let pods = of(json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "pods/status"],
            "namespaces": ["a"]}));
        assert!(pods.means(&who, &asked("pods", "", "a")));
        assert!(pods.means(&who, &asked("pods", "status", "a")));
        assert!(!pods.means(&who, &asked("pods", "log", "a")));
        assert!(!pods.means(&who, &asked("pods", "", "b")));
        assert!(!pods.means(&who, &asked("pods", "", "")), "not of the whole cluster");
        let all = of(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}));
        assert!(all.means(&who, &asked("pods", "log", "")));
        assert!(!all.means(&who, &asked("pods", "log", "a")), "names no namespace");
    }
}
