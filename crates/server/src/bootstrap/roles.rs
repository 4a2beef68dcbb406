//! The roles of `roles.txt` and their bindings, as objects.

use access::Rule;
use serde_json::{Map, Value, json};

const ROLES: &str = include_str!("roles.txt");
const GROUP: &str = "rbac.authorization.k8s.io";
const READ: [&str; 3] = ["get", "list", "watch"];
const CHANGE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
const CONTROLLER: &str = "system:controller:";

/// All roles and bindings.
pub(super) fn roles() -> Vec<Value> {
    let mut objects = Vec::new();
    let mut role: Option<Role> = None;
    for line in ROLES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), &mut role) {
            (["role", name, namespace @ ..], _) => {
                objects.extend(role.take().into_iter().flat_map(Role::objects));
                role = Some(Role::new(name, namespace.first().copied().unwrap_or_default()));
            }
            (words, Some(role)) => role.take_line(words),
            (_, None) => {}
        }
    }
    objects.extend(role.into_iter().flat_map(Role::objects));
    objects
}

/// What the role of hosts' agents allows, also before it is in the store, and that hosts ask each other how they are.
pub(crate) fn node_rules() -> Vec<Rule> {
    let role = roles().into_iter().find(|role| role["metadata"]["name"] == "system:node");
    let rules = role.and_then(|mut role| serde_json::from_value(role["rules"].take()).ok());
    let mut rules: Vec<Rule> = rules.unwrap_or_default();
    let (verbs, urls) = (vec!["get".to_owned()], vec!["/holdfast/status/host".to_owned()]);
    rules.push(Rule { verbs, urls, ..Rule::default() });
    rules
}

struct Role {
    name: &'static str,
    namespace: &'static str,
    labels: Map<String, Value>,
    rules: Vec<Value>,
    aggregation: Value,
    bindings: Vec<(&'static str, Vec<Value>)>,
}

impl Role {
    fn new(name: &'static str, namespace: &'static str) -> Self {
        let mut labels = Map::new();
        labels.insert("kubernetes.io/bootstrapping".into(), "rbac-defaults".into());
        let bindings = match name.strip_prefix(CONTROLLER) {
            Some(account) => vec![(name, vec![service_account(account)])],
            None => Vec::new(),
        };
        Role { name, namespace, labels, rules: Vec::new(), aggregation: Value::Null, bindings }
    }

    fn take_line(&mut self, words: &[&'static str]) {
        match words {
            ["label", key] => {
                self.labels.insert(aggregate(key), "true".into());
            }
            ["aggregate", key] => {
                self.aggregation = json!({"clusterRoleSelectors": [{"matchLabels": {aggregate(key): "true"}}]});
            }
            ["bind", subjects @ ..] => self.bindings.push((self.name, subjects_of(subjects))),
            ["bind-as", name, subjects @ ..] => self.bindings.push((name, subjects_of(subjects))),
            ["events"] => self.rules.push(json!({
                "verbs": ["create", "patch", "update"], "apiGroups": ["", "events.k8s.io"], "resources": ["events"],
            })),
            ["url", verbs, paths] => self.rules.push(json!({"verbs": list(verbs), "nonResourceURLs": list(paths)})),
            [verbs, groups, resources, names @ ..] => {
                let groups: Vec<&str> =
                    groups.split(',').map(|group| if group == "core" { "" } else { group }).collect();
                let mut rule =
                    json!({"verbs": verbs_of(verbs), "apiGroups": groups, "resources": list(resources)});
                if let Some(names) = names.first() {
                    rule["resourceNames"] = list(names);
                }
                self.rules.push(rule);
            }
            _ => {}
        }
    }

    fn objects(self) -> Vec<Value> {
        let (kind, binding_kind) = match self.namespace {
            "" => ("ClusterRole", "ClusterRoleBinding"),
            _ => ("Role", "RoleBinding"),
        };
        let object = |kind: &str, name: &str, labels: Map<String, Value>| {
            let mut metadata = json!({
                "name": name, "labels": labels,
                "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            });
            if !self.namespace.is_empty() {
                metadata["namespace"] = self.namespace.into();
            }
            json!({"kind": kind, "apiVersion": format!("{GROUP}/v1"), "metadata": metadata})
        };
        let mut role = object(kind, self.name, self.labels.clone());
        if !self.rules.is_empty() {
            role["rules"] = self.rules.into();
        }
        if !self.aggregation.is_null() {
            role["aggregationRule"] = self.aggregation;
        }
        let mut objects = vec![role];
        for (name, subjects) in self.bindings {
            // Labels that aggregate roles belong on roles alone.
            let labels = self.labels.iter().filter(|(key, _)| !key.starts_with(GROUP));
            let labels = labels.map(|(key, value)| (key.clone(), value.clone())).collect();
            let mut binding = object(binding_kind, name, labels);
            if !subjects.is_empty() {
                binding["subjects"] = subjects.into();
            }
            binding["roleRef"] = json!({"apiGroup": GROUP, "kind": kind, "name": self.name});
            objects.push(binding);
        }
        objects
    }
}

fn aggregate(key: &str) -> String {
    format!("{GROUP}/aggregate-to-{key}")
}

fn list(words: &str) -> Value {
    words.split(',').collect()
}

fn verbs_of(words: &str) -> Vec<&str> {
    let mut verbs = Vec::new();
    for word in words.split(',') {
        match word {
            "read" => verbs.extend(READ),
            "change" => verbs.extend(CHANGE),
            verb => verbs.push(verb),
        }
    }
    verbs.sort_unstable();
    verbs
}

fn service_account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "name": name, "namespace": "kube-system"})
}

fn subjects_of(words: &[&str]) -> Vec<Value> {
    let subject = |word: &&str| match word.split_once(':') {
        Some(("s", name)) => service_account(name),
        Some(("u", name)) => json!({"kind": "User", "apiGroup": GROUP, "name": name}),
        Some((_, name)) => json!({"kind": "Group", "apiGroup": GROUP, "name": name}),
        None => Value::Null,
    };
    words.iter().map(subject).collect()
}

#[cfg(test)]
mod tests {
    use access::{Attributes, Authorizer, UserInfo, Wanted};
    use store::State;

    use super::*;

    #[test]
    fn every_line_is_understood() {
        let objects = roles();
        assert!(objects.len() > 120, "{}", objects.len());
        for object in &objects {
            assert!(object["metadata"]["name"].is_string(), "{object}");
            let rules = object["rules"].as_array().into_iter().flatten();
            for rule in rules {
                let fields = ["resources", "nonResourceURLs"].iter().filter(|field| rule[**field].is_array());
                assert_eq!(fields.count(), 1, "{object}");
            }
            for subject in object["subjects"].as_array().into_iter().flatten() {
                assert!(subject["name"].is_string(), "{object}");
            }
        }
        assert!(node_rules().len() > 20);
        let view = objects.iter().find(|o| o["metadata"]["name"] == "view").unwrap();
        assert_eq!(view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"], "true");
    }

    #[test]
    fn without_roles_administrators_may_do_everything_and_hosts_what_agents_need() {
        let admin = UserInfo::new("kubernetes-admin", ["system:masters"]);
        let node = UserInfo::new("system:node:n1", ["system:nodes"]);
        let other = UserInfo::new("somebody", ["people"]);
        let (authorizer, state) = (Authorizer::new(node_rules()), State::default());
        for (verb, resource, subresource, nodes_may) in [
            ("get", "secrets", "", false),
            ("watch", "services", "", true),
            ("patch", "pods", "status", true),
            ("delete", "pods", "", true),
            ("create", "pods", "binding", false),
            ("get", "pods", "log", false),
            ("get", "services", "proxy", false),
            ("update", "nodes", "status", true),
            ("delete", "nodes", "", false),
            ("create", "events", "", true),
            ("deletecollection", "pods", "", false),
        ] {
            let wanted = Wanted::Object(Attributes {
                verb,
                group: "",
                resource,
                subresource,
                namespace: "",
                name: "n1",
                fields: "",
            });
            assert!(authorizer.allows(&state, &admin, &wanted).is_some(), "{wanted:?}");
            assert_eq!(authorizer.allows(&state, &node, &wanted).is_some(), nodes_may, "{wanted:?}");
            assert!(authorizer.allows(&state, &other, &wanted).is_none(), "{wanted:?}");
        }
    }
}
