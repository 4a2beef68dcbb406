//! Webhooks, asked over TLS as the configurations say.

use std::sync::Arc;

use http::Request;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::hooks::{Hook, admitted, patched};
use crate::house::{House, admin, body_of, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn rule(operations: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": ["*"], "apiVersions": ["*"], "operations": operations, "resources": resources})
}

/// A configuration with one webhook, with `more` in it.
fn configuration(kind: &str, name: &str, config: Value, rules: Value, more: Value) -> Value {
    let mut webhook = json!({
        "name": format!("{name}.example.com"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
        "clientConfig": config, "rules": [rules],
    });
    for (key, value) in more.as_object().unwrap() {
        webhook[key] = value.clone();
    }
    json!({"kind": kind, "apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}, "webhooks": [webhook]})
}

async fn configure(house: &House, configuration: Value) {
    let plural = format!("{}s", configuration["kind"].as_str().unwrap().to_lowercase());
    let path = format!("/apis/admissionregistration.k8s.io/v1/{plural}");
    let (code, answer) = house.ask("POST", &path, Some(configuration)).await;
    assert_eq!(code, 201, "{answer}");
}

async fn validating(house: &House, hook: &Hook, rules: Value, more: Value) {
    configure(house, configuration("ValidatingWebhookConfiguration", "v", hook.config(), rules, more)).await;
}

async fn mutating(house: &House, name: &str, hook: &Hook, rules: Value, more: Value) {
    configure(house, configuration("MutatingWebhookConfiguration", name, hook.config(), rules, more)).await;
}

fn map(name: &str) -> Value {
    json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}})
}

#[tokio::test]
async fn a_webhook_is_told_of_a_change_and_may_refuse_it() {
    let house = House::new().await;
    let hook = Hook::new(|request| match request["name"].as_str() {
        Some("bad") => {
            json!({"allowed": false, "status": {"message": "not this one", "code": 418, "reason": "Invalid"}})
        }
        Some("mute") => json!({"allowed": false}),
        _ => json!({"allowed": true, "warnings": ["think \"twice\""]}),
    })
    .await;
    validating(&house, &hook, rule(&["*"], &["configmaps"]), json!({})).await;

    let (code, answer) = house.ask("POST", MAPS, Some(map("bad"))).await;
    assert_eq!((code, answer["reason"].as_str()), (418, Some("Invalid")));
    assert_eq!(answer["message"], "admission webhook \"v.example.com\" denied the request: not this one");
    assert_eq!(hook.count(), 1, "a refusal is final");
    let (code, answer) = house.ask("POST", MAPS, Some(map("mute"))).await;
    assert_eq!(code, 400);
    assert_eq!(
        answer["message"],
        "admission webhook \"v.example.com\" denied the request without explanation"
    );

    let request = Request::post(format!("{MAPS}?dryRun=All")).header("content-type", "application/json");
    let response =
        house.server.handle(request.body(body_of(map("good").to_string())).unwrap(), Some(admin())).await;
    assert_eq!(response.status(), 201);
    assert_eq!(response.headers()["warning"], "299 - \"think \\\"twice\\\"\"");
    let asked = hook.last();
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(asked["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&asked["operation"], &asked["namespace"]), (&json!("CREATE"), &json!("default")));
    assert_eq!((&asked["dryRun"], &asked["options"]["dryRun"]), (&json!(true), &json!(["All"])));
    assert_eq!(asked["userInfo"]["username"], "admin");
    assert_eq!((&asked["object"]["data"]["k"], &asked["oldObject"]), (&json!("v"), &Value::Null));
    assert!(text(house.get(&format!("{MAPS}/good")).await).await.contains("NotFound"), "a dry run");

    assert_eq!(house.ask("POST", MAPS, Some(map("good"))).await.0, 201);
    assert_eq!(house.ask("PATCH", &format!("{MAPS}/good"), Some(json!({"data": {"k": "w"}}))).await.0, 200);
    let asked = hook.last();
    assert_eq!(asked["operation"], "UPDATE");
    assert_eq!((&asked["object"]["data"]["k"], &asked["oldObject"]["data"]["k"]), (&json!("w"), &json!("v")));
    assert_eq!(house.ask("DELETE", &format!("{MAPS}/good"), None).await.0, 200);
    let asked = hook.last();
    assert_eq!((&asked["operation"], &asked["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked["options"]["kind"], "DeleteOptions");
}

#[tokio::test]
async fn a_webhook_that_fails_counts_as_its_policy_says() {
    let house = House::new().await;
    let closed = Hook::new(|_| json!({"allowed": true, "uid": "another"})).await;
    let rules = rule(&["CREATE"], &["configmaps"]);
    validating(&house, &closed, rules.clone(), json!({"failurePolicy": "Fail"})).await;
    let (code, answer) = house.ask("POST", MAPS, Some(map("a"))).await;
    assert_eq!((code, answer["reason"].as_str()), (500, Some("InternalError")));
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "Internal error occurred: failed calling webhook \"v.example.com\": expected response.uid="
        ),
        "{message}"
    );

    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/v";
    let replace = |config: Value, policy: &str| {
        let more = json!({"failurePolicy": policy, "timeoutSeconds": 1});
        configuration("ValidatingWebhookConfiguration", "v", config, rules.clone(), more)["webhooks"].clone()
    };
    // Nobody there; an authority that nobody has; one that never answers.
    let silent = Hook::waiting_for(|_| admitted(), Some(Arc::new(Notify::new()))).await;
    let stranger = json!({"url": silent.config()["url"], "caBundle": closed.bundle});
    let nobody = json!({"url": "https://127.0.0.1:1/x", "caBundle": closed.bundle});
    for (config, why) in
        [(nobody, "refused"), (stranger, "certificate"), (silent.config(), "context deadline exceeded")]
    {
        let webhooks = replace(config.clone(), "Fail");
        assert_eq!(house.ask("PATCH", path, Some(json!({"webhooks": webhooks}))).await.0, 200);
        let (code, answer) = house.ask("POST", MAPS, Some(map("a"))).await;
        assert!(code == 500 && answer["message"].as_str().unwrap().contains(why), "{why}: {answer}");
        let webhooks = replace(config, "Ignore");
        assert_eq!(house.ask("PATCH", path, Some(json!({"webhooks": webhooks}))).await.0, 200);
        assert_eq!(house.ask("POST", MAPS, Some(map("a"))).await.0, 201);
        assert_eq!(house.ask("DELETE", &format!("{MAPS}/a"), None).await.0, 200);
    }
}

#[tokio::test]
async fn webhooks_change_objects_one_after_the_other_and_see_what_others_made() {
    let house = House::new().await;
    let first = Hook::new(|request| match request["object"]["data"]["second"].as_str() {
        None => patched(json!([{"op": "add", "path": "/data/first", "value": "1"}])),
        Some(_) => patched(json!([{"op": "add", "path": "/data/again", "value": "1"}])),
    })
    .await;
    let second = Hook::new(|request| {
        assert_eq!(request["object"]["data"]["first"], "1");
        patched(json!([{"op": "add", "path": "/data/second", "value": "2"},
            {"op": "replace", "path": "/metadata/name", "value": "other"}]))
    })
    .await;
    let rules = rule(&["CREATE"], &["configmaps"]);
    mutating(&house, "a", &first, rules.clone(), json!({"reinvocationPolicy": "IfNeeded"})).await;
    mutating(&house, "b", &second, rules, json!({})).await;
    let (code, made) = house.ask("POST", MAPS, Some(map("m"))).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!(made["data"], json!({"k": "v", "first": "1", "second": "2", "again": "1"}));
    assert_eq!(made["metadata"]["name"], "m", "what names an object is not for others to change");
    assert_eq!((first.count(), second.count()), (2, 1));

    // A patch that can't be applied, and one that makes an object of no kind.
    for patch in
        [json!([{"op": "remove", "path": "/nothing"}]), json!([{"op": "add", "path": "/data/x", "value": 7}])]
    {
        let house = House::new().await;
        let hook = Hook::new(move |_| patched(patch.clone())).await;
        mutating(&house, "a", &hook, rule(&["CREATE"], &["configmaps"]), json!({})).await;
        let (code, answer) = house.ask("POST", MAPS, Some(map("m"))).await;
        assert_eq!((code, answer["reason"].as_str()), (500, Some("InternalError")), "{answer}");
    }
}

#[tokio::test]
async fn a_container_that_a_webhook_puts_into_a_pod_gets_what_every_container_gets() {
    let house = House::new().await;
    let limits = json!({"kind": "LimitRange", "apiVersion": "v1", "metadata": {"name": "l"},
        "spec": {"limits": [{"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "100m"}}]}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/limitranges", Some(limits)).await.0, 201);
    let hook = Hook::new(|_| {
        patched(json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": "s"}}]))
    })
    .await;
    mutating(&house, "a", &hook, rule(&["CREATE"], &["pods"]), json!({})).await;
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let (code, made) = house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await;
    assert_eq!(code, 201, "{made}");
    let side = &made["spec"]["containers"][1];
    assert_eq!((&side["name"], &side["imagePullPolicy"]), (&json!("side"), &json!("Always")));
    assert_eq!(side["resources"]["requests"]["cpu"], "100m");
    assert_eq!(side["volumeMounts"], made["spec"]["containers"][0]["volumeMounts"]);
    assert_eq!(made["spec"]["volumes"].as_array().map(Vec::len), Some(1), "one token for all");
}

#[tokio::test]
async fn webhooks_are_asked_about_what_they_want_to_hear_of() {
    let house = House::new().await;
    let hook = Hook::new(|_| json!({"allowed": false})).await;
    validating(
        &house,
        &hook,
        rule(&["CREATE", "UPDATE"], &["configmaps", "deployments/scale", "pods/binding", "pods/eviction"]),
        json!({
            "objectSelector": {"matchExpressions": [{"key": "skip", "operator": "DoesNotExist"}]},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
            "matchConditions": [{"name": "not-mine", "expression": "request.userInfo.username != 'admin' || object == null || !has(object.data) || object.data.k != 'mine'"}],
        }),
    )
    .await;
    let mut skipped = map("skipped");
    skipped["metadata"]["labels"] = json!({"skip": "1"});
    let mut mine = map("mine");
    mine["data"] = json!({"k": "mine"});
    for (path, body, code) in [
        (MAPS, map("a"), 400),
        (MAPS, skipped, 201),
        (MAPS, mine, 201),
        ("/api/v1/namespaces/kube-system/configmaps", map("a"), 201),
    ] {
        assert_eq!(house.ask("POST", path, Some(body.clone())).await.0, code, "{path} {body}");
    }
    assert_eq!(hook.count(), 1);

    // Scales, bindings and evictions are shown as what they are.
    let deployment = json!({"kind": "Deployment", "apiVersion": "apps/v1", "metadata": {"name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let apps = "/apis/apps/v1/namespaces/default/deployments";
    assert_eq!(house.ask("POST", apps, Some(deployment)).await.0, 201);
    assert_eq!(
        house.ask("PATCH", &format!("{apps}/d/scale"), Some(json!({"spec": {"replicas": 3}}))).await.0,
        400
    );
    let asked = hook.last();
    assert_eq!(asked["kind"], json!({"group": "autoscaling", "version": "v1", "kind": "Scale"}));
    assert_eq!(
        (&asked["object"]["spec"]["replicas"], &asked["oldObject"]["spec"]["replicas"]),
        (&json!(3), &json!(1))
    );

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(house.ask("POST", pods, Some(pod)).await.0, 201);
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    assert_eq!(house.ask("POST", &format!("{pods}/p/binding"), Some(binding)).await.0, 400);
    let asked = hook.last();
    assert_eq!((&asked["operation"], &asked["subResource"]), (&json!("CREATE"), &json!("binding")));
    assert_eq!(asked["object"]["target"]["name"], "n1");
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    assert_eq!(house.ask("POST", &format!("{pods}/p/eviction"), Some(eviction)).await.0, 400);
    assert_eq!(hook.last()["kind"], json!({"group": "policy", "version": "v1", "kind": "Eviction"}));
    assert_eq!(house.ask("GET", &format!("{pods}/p"), None).await.0, 200);
}

#[tokio::test]
async fn the_same_objects_in_another_version_are_shown_in_the_one_that_is_wanted() {
    let house = House::new().await;
    let hook =
        Hook::new(|_| patched(json!([{"op": "replace", "path": "/spec/maxReplicas", "value": 7}]))).await;
    let mut rules = rule(&["CREATE"], &["horizontalpodautoscalers"]);
    rules["apiVersions"] = json!(["v2"]);
    mutating(&house, "a", &hook, rules, json!({})).await;
    let scaler = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1", "metadata": {"name": "h"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let path = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let (code, made) = house.ask("POST", path, Some(scaler)).await;
    assert_eq!(code, 201, "{made}");
    assert_eq!((&made["apiVersion"], &made["spec"]["maxReplicas"]), (&json!("autoscaling/v1"), &json!(7)));
    assert_eq!(made["spec"]["targetCPUUtilizationPercentage"], 50);
    let asked = hook.last();
    assert_eq!((&asked["kind"]["version"], &asked["requestKind"]["version"]), (&json!("v2"), &json!("v1")));
    assert_eq!(asked["object"]["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
}

#[tokio::test]
async fn a_webhook_behind_a_service_is_found_and_those_that_judge_are_asked_at_once() {
    let house = House::new().await;
    // The second lets the first go: asked one after the other, neither would ever answer.
    let gate = Arc::new(Notify::new());
    let first = gate.clone();
    let hook = Hook::waiting_for(move |_| admitted(), Some(gate)).await;
    let other = Hook::new(move |_| {
        first.notify_one();
        admitted()
    })
    .await;
    house.backends.addresses.lock().unwrap().push(hook.address);
    let service =
        json!({"service": {"namespace": "default", "name": "hook", "path": "/x"}, "caBundle": hook.bundle});
    let rules = rule(&["CREATE"], &["configmaps"]);
    configure(
        &house,
        configuration("ValidatingWebhookConfiguration", "a", service, rules.clone(), json!({})),
    )
    .await;
    configure(&house, configuration("ValidatingWebhookConfiguration", "b", other.config(), rules, json!({})))
        .await;
    assert_eq!(house.ask("POST", MAPS, Some(map("m"))).await.0, 201);
    assert_eq!((hook.count(), other.count()), (1, 1));
}

#[tokio::test]
async fn nobody_decides_over_configurations_and_side_effects_forbid_dry_runs() {
    let house = House::new().await;
    let hook = Hook::new(|_| json!({"allowed": false})).await;
    validating(&house, &hook, rule(&["*"], &["*/*"]), json!({})).await;
    let path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/v";
    assert_eq!(house.ask("POST", MAPS, Some(map("m"))).await.0, 400);
    assert_eq!(house.ask("DELETE", path, None).await.0, 200, "or nobody could repair it");
    assert_eq!(house.ask("POST", MAPS, Some(map("m"))).await.0, 201);

    let conditions = json!([{"name": "c", "expression": "object.nothing == 1 &&"}]);
    let wrong = configuration(
        "ValidatingWebhookConfiguration",
        "w",
        hook.config(),
        rule(&["*"], &["*"]),
        json!({"matchConditions": conditions}),
    );
    let (code, answer) = house
        .ask("POST", "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations", Some(wrong))
        .await;
    assert_eq!(code, 422);
    assert_eq!(answer["details"]["causes"][0]["field"], "webhooks[0].matchConditions[0].expression");
}

#[tokio::test]
async fn a_webhook_is_asked_about_proxies_and_deletes() {
    let house = House::new().await;
    let hook = Hook::new(|request| match (&request["operation"], request["name"].as_str()) {
        (operation, Some("s:web")) if operation == "CONNECT" => {
            json!({"allowed": false, "status": {"message": "no way", "code": 403}})
        }
        (operation, Some("patched")) if operation == "DELETE" => {
            patched(json!([{"op": "add", "path": "/metadata/labels", "value": {}}]))
        }
        (operation, Some("kept")) if operation == "DELETE" => json!({"allowed": false}),
        _ => admitted(),
    })
    .await;
    mutating(&house, "m", &hook, rule(&["CONNECT", "DELETE"], &["*/*"]), json!({})).await;

    let services = "/api/v1/namespaces/default/services";
    let answer = house.get(&format!("{services}/s:web/proxy/x/y?z=1")).await;
    assert_eq!(answer.status(), 403);
    let answer = text(answer).await;
    assert!(
        answer.contains("admission webhook \\\"m.example.com\\\" denied the request: no way"),
        "{answer}"
    );
    let asked = hook.last();
    assert_eq!(asked["kind"], json!({"group": "", "version": "v1", "kind": "ServiceProxyOptions"}));
    assert_eq!((&asked["operation"], &asked["subResource"]), (&json!("CONNECT"), &json!("proxy")));
    assert_eq!(asked["resource"], json!({"group": "", "version": "v1", "resource": "services"}));
    assert_eq!(asked["object"], json!({"kind": "ServiceProxyOptions", "apiVersion": "v1", "path": "x/y"}));
    assert_eq!((&asked["oldObject"], &asked["options"]), (&Value::Null, &Value::Null));
    assert_eq!(house.get(&format!("{services}/other/proxy/")).await.status(), 404, "let through");

    for name in ["gone", "kept", "patched"] {
        assert_eq!(house.ask("POST", MAPS, Some(map(name))).await.0, 201);
    }
    assert_eq!(house.ask("DELETE", &format!("{MAPS}/gone"), None).await.0, 200);
    let asked = hook.last();
    assert_eq!((&asked["operation"], &asked["object"]), (&json!("DELETE"), &Value::Null));
    assert_eq!(asked["oldObject"]["data"]["k"], "v");
    assert_eq!(house.ask("DELETE", &format!("{MAPS}/kept"), None).await.0, 400);
    let (code, answer) = house.ask("DELETE", &format!("{MAPS}/patched"), None).await;
    assert_eq!(code, 500);
    assert_eq!(
        answer["message"],
        "Internal error occurred: admission webhook \"m.example.com\" attempted to modify the object, which is not \
            supported for this operation"
    );
    for name in ["kept", "patched"] {
        assert_eq!(house.ask("GET", &format!("{MAPS}/{name}"), None).await.0, 200);
    }
}
