//! Roles, bindings and the questions about them; what only some may decide.

use http::Request;
use machinery::Object;
use objects::Write;
use serde_json::{Value, json};
use server::{RevocationList, UserInfo};
use store::Store;

use crate::house::{House, admin, body_of, node, text};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";
const CSRS: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn person(name: &str) -> UserInfo {
    UserInfo::new(name, ["people"])
}

async fn made(house: &House, path: &str, object: Value) {
    let (code, answer) = house.ask("POST", path, Some(object)).await;
    assert_eq!(code, 201, "{path}: {answer}");
}

/// Gives the user a role of that name with the rules, in the namespace `default`.
async fn grant(house: &House, name: &str, rules: Value) {
    made(
        house,
        &format!("{RBAC}/namespaces/default/roles"),
        json!({"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name}, "rules": rules}),
    )
    .await;
    made(house, &format!("{RBAC}/namespaces/default/rolebindings"), binding(name, "Role", name, name)).await;
}

fn binding(name: &str, kind: &str, role: &str, user: &str) -> Value {
    json!({
        "kind": "RoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "User", "name": user}],
    })
}

fn role(name: &str, verbs: &[&str]) -> Value {
    json!({
        "kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}],
    })
}

#[tokio::test]
async fn nobody_grants_more_than_they_have() {
    let house = House::new().await;
    grant(
        &house,
        "jane",
        json!([
            {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles", "rolebindings"], "verbs": ["create", "patch"]},
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]},
        ]),
    )
    .await;
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
    let ask = async |method: &str, path: &str, body: Value| {
        house.ask_as(person("jane"), method, path, Some(body)).await
    };
    assert_eq!(ask("POST", &roles, role("less", &["get"])).await.0, 201);
    let (code, answer) = ask("POST", &roles, role("more", &["get", "delete"])).await;
    assert_eq!((code, &answer["reason"]), (403, &json!("Forbidden")), "{answer}");
    assert!(answer["message"].as_str().unwrap().contains("not currently held"), "{answer}");
    let wider = json!({"rules": role("less", &["*"])["rules"]});
    assert_eq!(ask("PATCH", &format!("{roles}/less"), wider).await.0, 403);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(ask("PATCH", &format!("{roles}/less"), labelled).await.0, 200, "rules are as they were");

    assert_eq!(ask("POST", &bindings, binding("a", "Role", "less", "bob")).await.0, 201);
    assert_eq!(ask("POST", &bindings, binding("b", "ClusterRole", "cluster-admin", "bob")).await.0, 403);
    assert_eq!(ask("POST", &bindings, binding("c", "Role", "absent", "bob")).await.0, 404);
    grant(
        &house,
        "bind",
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"],
            "resourceNames": ["view"], "verbs": ["bind"]}]),
    )
    .await;
    made(&house, &bindings, binding("jane-binds", "Role", "bind", "jane")).await;
    assert_eq!(ask("POST", &bindings, binding("d", "ClusterRole", "view", "bob")).await.0, 201);
}

#[tokio::test]
async fn a_binding_counts_from_the_moment_it_is_written_until_it_is_gone() {
    let house = House::new().await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let may = async || house.ask_as(person("jane"), "GET", maps, None).await.0;
    assert_eq!(may().await, 403);
    grant(&house, "jane", role("", &["list"])["rules"].clone()).await;
    assert_eq!(may().await, 200);
    let other =
        house.ask_as(person("jane"), "GET", "/api/v1/namespaces/kube-system/configmaps", None).await.0;
    assert_eq!(other, 403, "in its namespace alone");
    let path = format!("{RBAC}/namespaces/default/roles/jane");
    house.ask("PATCH", &path, Some(json!({"rules": role("", &["get"])["rules"]}))).await;
    assert_eq!(may().await, 403);
    house.ask("PATCH", &path, Some(json!({"rules": role("", &["list"])["rules"]}))).await;
    assert_eq!(may().await, 200);
    house.ask("DELETE", &format!("{RBAC}/namespaces/default/rolebindings/jane"), None).await;
    assert_eq!(may().await, 403);

    let question = json!({"kind": "SelfSubjectRulesReview", "apiVersion": "authorization.k8s.io/v1",
        "spec": {"namespace": "default"}});
    let path = "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let (code, answer) = house.ask_as(person("jane"), "POST", path, Some(question)).await;
    assert_eq!(code, 201, "{answer}");
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["resources"][0] == "selfsubjectreviews"), "{answer}");
    assert!(!rules.iter().any(|rule| rule["resources"][0] == "configmaps"), "{answer}");
    assert!(answer["status"]["nonResourceRules"].to_string().contains("/openapi/*"), "{answer}");
}

#[tokio::test]
async fn only_who_may_acts_as_somebody_else() {
    let house = House::new().await;
    let ask = async |who: UserInfo, headers: &[(&str, &str)]| {
        let mut request = Request::get("/api/v1/namespaces/default/configmaps");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = house.server.handle(request.body(body_of("")).unwrap(), Some(who)).await;
        (response.status().as_u16(), text(response).await)
    };
    let as_group = [("Impersonate-User", "bob"), ("Impersonate-Group", "system:masters")];
    assert_eq!(ask(admin(), &as_group).await.0, 200);
    assert_eq!(ask(person("jane"), &as_group).await.0, 403);
    assert_eq!(ask(admin(), &as_group[1..]).await.0, 400);
    assert_eq!(ask(admin(), &[("Impersonate-User", "bob")]).await.0, 403);
    grant(
        &house,
        "jane",
        json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["sa"], "verbs": ["impersonate"]}]),
    )
    .await;
    let account = |name: &str| format!("system:serviceaccount:default:{name}");
    let (code, answer) = ask(person("jane"), &[("Impersonate-User", &account("sa"))]).await;
    assert!(
        code == 403 && answer.contains("serviceaccount:default:sa"),
        "the account itself may not list: {answer}"
    );
    let (code, answer) = ask(person("jane"), &[("Impersonate-User", &account("other"))]).await;
    assert!(code == 403 && answer.contains("jane"), "{answer}");
}

#[tokio::test]
async fn a_host_reads_the_secrets_of_its_pods_alone() {
    let house = House::new().await;
    for name in ["mine", "other"] {
        let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": name}});
        made(&house, "/api/v1/namespaces/default/secrets", secret).await;
    }
    let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "p"}, "spec": {
        "nodeName": "n1", "containers": [{"name": "c", "image": "i"}],
        "volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}});
    made(&house, "/api/v1/namespaces/default/pods", pod).await;
    for (host, path, expected) in [
        ("n1", "/api/v1/namespaces/default/secrets/mine", 200),
        ("n1", "/api/v1/namespaces/default/secrets/other", 403),
        ("n2", "/api/v1/namespaces/default/secrets/mine", 403),
        ("n1", "/api/v1/namespaces/default/secrets", 403),
        ("n1", "/api/v1/secrets", 403),
        ("n1", "/api/v1/pods", 403),
        ("n1", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", 200),
        ("n1", "/api/v1/services", 200),
        ("n1", "/apis", 200),
    ] {
        let (code, answer) = house.ask_as(node(host), "GET", path, None).await;
        assert_eq!(code, expected, "{host} {path}: {answer}");
    }
}

#[tokio::test]
async fn what_was_taken_back_is_changed_by_who_may_revoke_alone() {
    let house = House::new().await;
    for verb in ["revoke", "sign"] {
        let rules = json!([
            {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "verbs": [verb]},
        ]);
        let role = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": verb}, "rules": rules});
        made(&house, &format!("{RBAC}/clusterroles"), role).await;
        let mut bound = binding(verb, "ClusterRole", verb, verb);
        bound["kind"] = json!("ClusterRoleBinding");
        made(&house, &format!("{RBAC}/clusterrolebindings"), bound).await;
    }
    let maps = "/api/v1/namespaces/kube-system/configmaps";
    let list = RevocationList::PATH;
    let ask = async |who: &str, method: &str, path: &str, body: Option<Value>| {
        house.ask_as(person(who), method, path, body).await
    };
    let entry = || Some(json!({"data": {"a": "b"}}));
    let (code, answer) = ask("sign", "POST", maps, Some(RevocationList::object())).await;
    assert!(code == 403 && answer["message"].as_str().unwrap().contains("revoke"), "{answer}");
    assert_eq!(ask("revoke", "POST", maps, Some(RevocationList::object())).await.0, 201);
    for (method, path, body) in [("PATCH", list, entry()), ("DELETE", list, None), ("DELETE", maps, None)] {
        assert_eq!(ask("sign", method, path, body).await.0, 403, "{method} {path}");
    }
    for (method, body) in [("PATCH", entry()), ("DELETE", None)] {
        assert_eq!(ask("revoke", method, list, body).await.0, 200, "{method}");
    }
    let other = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "other"}});
    assert_eq!(ask("sign", "POST", maps, Some(other)).await.0, 201, "others are as ever");
}

#[tokio::test]
async fn a_request_for_a_certificate_is_its_senders_and_approved_by_who_may() {
    let house = House::new().await;
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let request = json!({"kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1",
        "metadata": {"name": "r"}, "spec": {"request": pem, "signerName": "example.com/s",
            "usages": ["client auth"], "username": "somebody-else"}});
    let (code, answer) = house.ask_as(admin(), "POST", CSRS, Some(request)).await;
    assert_eq!((code, &answer["spec"]["username"]), (201, &json!("admin")), "{answer}");
    assert_eq!(answer["spec"]["groups"], json!(["system:masters", "system:authenticated"]));

    let approval = format!("{CSRS}/r/approval");
    let decided =
        |kind: &str| json!({"status": {"conditions": [{"type": kind, "status": "True", "reason": "x"}]}});
    let (code, answer) = house.ask("PATCH", &format!("{CSRS}/r"), Some(decided("Approved"))).await;
    assert_eq!((code, &answer["status"]), (200, &json!({})), "not through the object itself");
    for verb in ["approve", "nothing"] {
        let rules = json!([
            {"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"], "verbs": ["patch"]},
            {"apiGroups": ["certificates.k8s.io"], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": [verb]},
        ]);
        let role = json!({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1",
            "metadata": {"name": verb}, "rules": rules});
        made(&house, &format!("{RBAC}/clusterroles"), role).await;
        let mut bound = binding(verb, "ClusterRole", verb, verb);
        bound["kind"] = json!("ClusterRoleBinding");
        made(&house, &format!("{RBAC}/clusterrolebindings"), bound).await;
    }
    let ask = async |who: &str, kind: &str| {
        house.ask_as(person(who), "PATCH", &approval, Some(decided(kind))).await
    };
    assert_eq!(ask("nothing", "Approved").await.0, 403);
    let (code, answer) = ask("approve", "Approved").await;
    assert_eq!(code, 200, "{answer}");
    let condition = &answer["status"]["conditions"][0];
    assert!(
        condition["lastUpdateTime"].is_string() && condition["lastTransitionTime"].is_string(),
        "{answer}"
    );
    assert_eq!(ask("approve", "Denied").await.0, 422, "what is decided stays");
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let request = Request::get(CSRS).header("accept", accept).body(body_of("")).unwrap();
    let table = text(house.server.handle(request, Some(admin())).await).await;
    assert!(table.contains(r#""Approved""#), "{table}");
}

#[tokio::test]
async fn one_priority_class_is_the_default_and_the_systems_stay() {
    let house = House::new().await;
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str| {
        json!({"kind": "PriorityClass", "apiVersion": "scheduling.k8s.io/v1", "metadata": {"name": name},
            "value": 5, "globalDefault": true})
    };
    made(&house, path, class("a")).await;
    assert_eq!(house.ask("POST", path, Some(class("b"))).await.0, 403);
    let again = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(house.ask("PATCH", &format!("{path}/a"), Some(again)).await.0, 200);
    assert_eq!(house.ask("DELETE", &format!("{path}/system-node-critical"), None).await.0, 403);
    assert_eq!(house.ask("DELETE", &format!("{path}/a"), None).await.0, 200);
}

#[tokio::test]
async fn default_objects_are_made_once_and_again_where_one_is_missing() {
    let house = House::new().await;
    let before = house.store.snapshot().revision();
    house.server.bootstrap().await.unwrap();
    assert_eq!(house.store.snapshot().revision(), before, "nothing was missing");
    let view = format!("{RBAC}/clusterroles/view");
    house.ask("DELETE", &view, None).await;
    house.server.bootstrap().await.unwrap();
    assert_eq!(house.ask("GET", &view, None).await.0, 200);
    let (_, services) = house.ask("GET", "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", None).await;
    assert_eq!(services["status"]["conditions"][0]["reason"], "Local", "{services}");
    let (_, cidr) = house.ask("GET", "/apis/networking.k8s.io/v1/servicecidrs/kubernetes", None).await;
    assert_eq!(cidr["spec"]["cidrs"], json!(["10.96.0.0/16"]));
    assert_eq!(cidr["status"]["conditions"][0]["status"], "True");
}

#[tokio::test]
async fn a_hosts_agent_works_before_there_are_roles() {
    let house = House::new().await;
    house.ask("DELETE", &format!("{RBAC}/clusterroles"), None).await;
    let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    let object = Object::from_value(object).unwrap();
    house.server.writer().write("system:node:n1", Write::Create(object)).await.unwrap();
}

#[tokio::test]
async fn who_may_read_one_object_may_list_and_watch_it_alone() {
    let house = House::new().await;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["one"],
        "verbs": ["get", "list", "watch", "deletecollection"]}]);
    grant(&house, "jane", rules).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "one"}});
    made(&house, maps, map).await;
    let other = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "two"}});
    made(&house, maps, other).await;
    for (method, query, expected) in [
        ("GET", "fieldSelector=metadata.name%3Done", 200),
        ("GET", "fieldSelector=metadata.name%3D%3Done", 200),
        ("GET", "fieldSelector=metadata.namespace%3Ddefault%2Cmetadata.name%3Done", 200),
        ("GET", "fieldSelector=metadata.name%3Done%2Cmetadata.name%3Dtwo", 200),
        ("GET", "fieldSelector=metadata.name%3Dtwo", 403),
        ("GET", "fieldSelector=metadata.name!%3Done", 403),
        ("GET", "fieldSelector=metadata.name!%3Dx%5C%2Cmetadata.name%3Done", 403),
        ("GET", "fieldSelector=metadata.name%3D", 403),
        ("GET", "fieldSelector=&fieldSelector=metadata.name%3Done", 403),
        ("GET", "", 403),
        ("DELETE", "fieldSelector=metadata.name%3Done", 403),
    ] {
        let (code, answer) = house.ask_as(person("jane"), method, &format!("{maps}?{query}"), None).await;
        assert_eq!(code, expected, "{method} {query}: {answer}");
        let names = answer["items"].as_array().into_iter().flatten().map(|item| &item["metadata"]["name"]);
        assert!(names.into_iter().all(|name| name == "one"), "{query}: {answer}");
    }
    let watch = async |query: &str, header: Option<(&str, &str)>| {
        let who = if header.is_some() { admin() } else { person("jane") };
        let mut request = Request::get(format!("{maps}{query}"));
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        house.server.handle(request.body(body_of("")).unwrap(), Some(who)).await.status().as_u16()
    };
    let one = "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Done";
    assert_eq!(watch(one, None).await, 200);
    assert_eq!(watch(one, Some(("Impersonate-User", "jane"))).await, 200);
    assert_eq!(watch("/one?watch=1&timeoutSeconds=1", None).await, 200);
    assert_eq!(watch("/two?watch=1&fieldSelector=metadata.name%3Done", None).await, 403);
    assert_eq!(watch("?watch=1&fieldSelector=metadata.name%3Dtwo", None).await, 403);
    assert_eq!(watch("?watch=1", None).await, 403);

    // A question names its object itself: a field selector beside it is no name (as upstream).
    let question = |name: &str| {
        json!({"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {"user": "jane",
            "resourceAttributes": {"namespace": "default", "verb": "list", "resource": "configmaps", "name": name,
                "fieldSelector": {"requirements": [
                    {"key": "metadata.name", "operator": "In", "values": ["one"]}]}}}})
    };
    let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
    for (name, expected) in [("one", true), ("", false)] {
        let (_, answer) = house.ask("POST", path, Some(question(name))).await;
        assert_eq!(answer["status"]["allowed"], expected, "{answer}");
    }
}
