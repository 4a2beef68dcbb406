//! FlowSchemas: which requests each of them means.

use serde::Deserialize;

use crate::{Request, Target};

const ACCOUNTS: &str = "system:serviceaccount:";

/// A FlowSchema as it is stored.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    pub(crate) priority_level_configuration: Reference,
    pub(crate) matching_precedence: i64,
    pub(crate) distinguisher_method: Option<Method>,
    #[serde(deserialize_with = "or_none")]
    pub(crate) rules: Vec<Rule>,
}

#[derive(Debug, Default, Deserialize)]
pub(crate) struct Reference {
    pub(crate) name: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Method {
    #[serde(rename = "type")]
    pub(crate) kind: Distinguisher,
}

/// What makes requests of one schema different flows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Distinguisher {
    ByUser,
    ByNamespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Rule {
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

impl Rule {
    /// Whether the rule means a request.
    pub(crate) fn means(&self, request: &Request<'_>) -> bool {
        self.subjects.iter().any(|subject| subject.means(request))
            && match request.target {
                Target::Objects { .. } => self.resource_rules.iter().any(|rule| rule.means(request)),
                Target::Path(path) => {
                    self.non_resource_rules.iter().any(|rule| rule.means(request.verb, path))
                }
            }
    }
}

impl Subject {
    fn means(&self, request: &Request<'_>) -> bool {
        if let Some(user) = &self.user {
            return user.name == "*" || user.name == request.user;
        }
        if let Some(group) = &self.group {
            return group.name == "*" || request.groups.contains(&group.name);
        }
        let account = request.user.strip_prefix(ACCOUNTS).and_then(|account| account.split_once(':'));
        let (Some(meant), Some((namespace, name))) = (&self.service_account, account) else { return false };
        meant.namespace == namespace && (meant.name == "*" || meant.name == name)
    }
}

impl ResourceRule {
    fn means(&self, request: &Request<'_>) -> bool {
        let Target::Objects { group, resource, subresource, .. } = request.target else { return false };
        let is_resource = |meant: &String| match meant.split_once('/') {
            None => meant == "*" || subresource.is_empty() && meant == resource,
            Some((meant, part)) => meant == resource && part == subresource,
        };
        any(&self.verbs, request.verb)
            && any(&self.api_groups, group)
            && self.resources.iter().any(is_resource)
            && match request.namespace() {
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

    fn rule(value: serde_json::Value) -> Rule {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn rules_mean_users_groups_and_accounts() {
        let account = "system:serviceaccount:ns:name";
        let groups = ["g".to_owned()];
        let get =
            |user| Request { user, groups: &groups, verb: "get", target: Target::Path("/healthz/ping") };
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
            assert_eq!(rule.means(&get(user)), means, "{user} {rule:?}");
        }
    }

    #[test]
    fn rules_mean_resources_in_namespaces_or_of_the_cluster() {
        let asked = |resource: &'static str, subresource: &'static str, namespace: &'static str| {
            let target = Target::Objects { group: "", resource, subresource, namespace, name: "" };
            Request { user: "a", groups: &[], verb: "list", target }
        };
        let of = |rules: serde_json::Value| {
            rule(
                json!({"subjects": [{"user": {"name": "*"}}], "resourceRules": [rules], "nonResourceRules": null}),
            )
        };
        let pods = of(json!({"verbs": ["list"], "apiGroups": [""], "resources": ["pods", "pods/status"],
            "namespaces": ["a"]}));
        assert!(pods.means(&asked("pods", "", "a")));
        assert!(pods.means(&asked("pods", "status", "a")));
        assert!(!pods.means(&asked("pods", "log", "a")));
        assert!(!pods.means(&asked("pods", "", "b")));
        assert!(!pods.means(&asked("pods", "", "")), "not of the whole cluster");
        let all = of(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true}));
        assert!(all.means(&asked("pods", "log", "")));
        assert!(!all.means(&asked("pods", "log", "a")), "names no namespace");
    }
}
