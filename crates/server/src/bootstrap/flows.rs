//! The priority levels and flow schemas that requests are classed by before anybody wrote one: upstream's
//! suggested and mandatory ones.

use serde_json::{Value, json};

const LEVELS: [(&str, u32, u32, u32, u32); 7] = [
    // Name, shares, what of them may be lent in percent, queues (none: what is too much is refused) and how many of
    // them a flow is dealt.
    ("catch-all", 5, 0, 0, 0),
    ("global-default", 20, 50, 128, 6),
    ("leader-election", 10, 0, 16, 4),
    ("node-high", 40, 25, 64, 6),
    ("system", 30, 33, 64, 6),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
];
const EVERYBODY: [&str; 2] = ["system:unauthenticated", "system:authenticated"];

/// All levels and schemas.
pub(super) fn flows(now: &str) -> Vec<Value> {
    let mut objects = vec![object(
        "PriorityLevelConfiguration",
        "exempt",
        json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}}),
    )];
    for (name, shares, lendable, queues, hand) in LEVELS {
        let response = match queues {
            0 => json!({"type": "Reject"}),
            _ => json!({
                "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50},
            }),
        };
        let limited = json!({
            "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
        });
        objects.push(object(
            "PriorityLevelConfiguration",
            name,
            json!({"type": "Limited", "limited": limited}),
        ));
    }
    let mut schemas = schemas();
    schemas.iter_mut().for_each(|schema| found(schema, now));
    objects.extend(schemas);
    objects
}

fn schemas() -> Vec<Value> {
    let leases = |verbs: &[&str]| resources(verbs, "coordination.k8s.io", &["leases"], false);
    let nodes = resources(&["*"], "", &["nodes", "nodes/status"], true);
    let anything = json!({"resourceRules": [everything()], "nonResourceRules": [paths("*", &["*"])]});
    let on = |mut rules: Value, subjects: Vec<Value>| {
        rules["subjects"] = subjects.into();
        json!([rules])
    };
    let managers = [user("system:kube-controller-manager"), user("system:kube-scheduler")];
    let health = json!({"nonResourceRules": [paths("get", &["/healthz", "/readyz", "/livez"])]});
    let account =
        json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": "*"}});
    vec![
        schema("exempt", "exempt", 1, "", on(anything.clone(), vec![group("system:masters")])),
        schema("probes", "exempt", 2, "", on(health, EVERYBODY.map(group).to_vec())),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            "ByUser",
            on(json!({"resourceRules": [leases(&["get", "create", "update"])]}), managers.to_vec()),
        ),
        schema(
            "system-node-high",
            "node-high",
            400,
            "ByUser",
            on(json!({"resourceRules": [nodes, leases(&["*"])]}), vec![group("system:nodes")]),
        ),
        schema("system-nodes", "system", 500, "ByUser", on(anything.clone(), vec![group("system:nodes")])),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            "ByNamespace",
            on(anything.clone(), vec![user("system:kube-controller-manager")]),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            "ByNamespace",
            on(anything.clone(), vec![user("system:kube-scheduler")]),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            "ByNamespace",
            on(anything.clone(), vec![account]),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            "ByUser",
            on(anything.clone(), vec![group("system:serviceaccounts")]),
        ),
        schema(
            "global-default",
            "global-default",
            9900,
            "ByUser",
            on(anything.clone(), EVERYBODY.map(group).to_vec()),
        ),
        schema("catch-all", "catch-all", 10000, "ByUser", on(anything, EVERYBODY.map(group).to_vec())),
    ]
}

fn schema(name: &str, level: &str, precedence: u32, by: &str, rules: Value) -> Value {
    let mut spec = json!({
        "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
    });
    if !by.is_empty() {
        spec["distinguisherMethod"] = json!({"type": by});
    }
    object("FlowSchema", name, spec)
}

/// The schema's level is there.
fn found(schema: &mut Value, now: &str) {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let message = format!(
        "This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists"
    );
    schema["status"] = json!({"conditions": [{
        "type": "Dangling", "status": "False", "reason": "Found", "lastTransitionTime": now, "message": message,
    }]});
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "kind": kind, "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec,
    })
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], cluster: bool) -> Value {
    let mut rule = json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"]});
    if cluster {
        rule["clusterScope"] = true.into();
    }
    rule
}

fn everything() -> Value {
    resources(&["*"], "*", &["*"], true)
}

fn paths(verb: &str, urls: &[&str]) -> Value {
    json!({"verbs": [verb], "nonResourceURLs": urls})
}
