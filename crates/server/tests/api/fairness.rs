//! Clients that ask too much, and others beside them.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::json;
use server::{Body, UserInfo};
use tokio::task::JoinSet;

use crate::house::{House, body_of, node, text};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn user(name: &str) -> UserInfo {
    UserInfo::new(name, ["people"])
}

/// A house where everybody may do everything.
async fn open_house() -> Arc<House> {
    let house = House::new().await;
    let binding = json!({"kind": "ClusterRoleBinding", "apiVersion": "rbac.authorization.k8s.io/v1",
        "metadata": {"name": "all"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
        "name": "cluster-admin"}, "subjects": [{"kind": "Group", "name": "system:authenticated"}]});
    house.ask("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Some(binding)).await;
    Arc::new(house)
}

/// A body that never comes.
fn endless() -> Body {
    StreamBody::new(futures::stream::pending::<Result<Frame<Bytes>, hyper::Error>>()).boxed_unsync()
}

/// A body that is long, and never ends.
fn heavy() -> Body {
    static BEGIN: LazyLock<Bytes> = LazyLock::new(|| vec![b' '; 3 << 20].into());
    let begin = futures::stream::once(async { Ok(Frame::data(BEGIN.clone())) });
    StreamBody::new(begin.chain(futures::stream::pending())).boxed_unsync()
}

/// Sends this many writes at the same time, with such bodies.
fn send(house: &Arc<House>, who: &str, count: usize, body: fn() -> Body) -> JoinSet<Response<Body>> {
    let mut requests = JoinSet::new();
    for _ in 0..count {
        let (server, who) = (house.server.clone(), user(who));
        requests.spawn(async move {
            let request = Request::post(MAPS).body(body()).unwrap();
            server.handle(request, Some(who)).await
        });
    }
    requests
}

/// Sends this many writes at the same time whose bodies never end, and hold more than is read ahead of a seat.
fn hang(house: &Arc<House>, who: &str, count: usize) -> JoinSet<Response<Body>> {
    send(house, who, count, heavy)
}

async fn ask(house: &House, who: UserInfo, method: &str, path: &str) -> Response<Body> {
    let request = Request::builder().method(method).uri(path).body(body_of("")).unwrap();
    house.server.handle(request, Some(who)).await
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "time is paused")]
async fn a_client_that_takes_all_it_can_get_delays_neither_nodes_nor_controllers_nor_others() {
    let house = open_house().await;
    let mut noisy = hang(&house, "noisy", 2000);
    let begin = tokio::time::Instant::now();
    // Those that find no room in the flow's queues are refused at once, and told when to come again.
    let refused = noisy.join_next().await.unwrap().unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1");
    let status: serde_json::Value = serde_json::from_str(&text(refused).await).unwrap();
    assert_eq!(status["reason"], "TooManyRequests");
    assert_eq!(status["details"]["retryAfterSeconds"], 1);

    let lease = json!({"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "n1"},
        "spec": {"holderIdentity": "n1"}});
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    assert_eq!(house.ask_as(node("n1"), "POST", leases, Some(lease)).await.0, 201);
    for n in 0..50 {
        let renewed = json!({"spec": {"leaseDurationSeconds": 40 + n}});
        assert_eq!(house.ask_as(node("n1"), "PATCH", &format!("{leases}/n1"), Some(renewed)).await.0, 200);
        let manager = user("system:kube-controller-manager");
        assert_eq!(ask(&house, manager, "GET", "/api/v1/pods").await.status(), 200);
        assert_eq!(ask(&house, user("kubernetes-admin"), "GET", "/readyz").await.status(), 200);
    }
    assert_eq!(begin.elapsed(), Duration::ZERO, "none of them waited");

    let metrics = text(house.get("/metrics").await).await;
    let waiting = "apiserver_flowcontrol_current_inqueue_requests{priority_level=\"global-default\",flow_schema=\"global-default\"} ";
    let waiting = metrics.lines().find_map(|line| line.strip_prefix(waiting)).unwrap();
    assert!(waiting.parse::<u32>().unwrap() > 50, "{waiting}");
    assert!(metrics.contains("reason=\"queue-full\"} "), "{metrics}");
    assert!(metrics.contains("apiserver_flowcontrol_nominal_limit_seats{priority_level=\"node-high\"} 98\n"));

    // What holds a seat ends after a minute, and what waits after a quarter of it.
    let mut codes = Vec::new();
    while let Some(answer) = noisy.join_next().await {
        codes.push(answer.unwrap().status().as_u16());
    }
    assert!(codes.contains(&504) && codes.contains(&429), "{codes:?}");
    assert!(begin.elapsed() <= Duration::from_secs(80), "{:?}", begin.elapsed());
    let answer = ask(&house, user("noisy"), "GET", MAPS).await;
    assert_eq!(answer.status(), 200, "and all seats are free again");
    let metrics = text(house.get("/metrics").await).await;
    assert!(metrics.contains("current_executing_seats{priority_level=\"global-default\"} 0\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods, reason = "time is paused")]
async fn clients_whose_bodies_never_come_hold_no_seat() {
    let house = open_house().await;
    let mut silent = send(&house, "noisy", 2000, endless);
    tokio::task::yield_now().await;
    let begin = tokio::time::Instant::now();
    for n in 0..100 {
        let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": format!("m{n}")}});
        assert_eq!(house.ask_as(user("noisy"), "POST", MAPS, Some(map)).await.0, 201, "of the same level");
    }
    let metrics = text(house.get("/metrics").await).await;
    assert!(metrics.contains("current_executing_seats{priority_level=\"global-default\"} 0\n"), "{metrics}");
    assert_eq!(begin.elapsed(), Duration::ZERO, "none of them waited");
    while let Some(answer) = silent.join_next().await {
        assert_eq!(answer.unwrap().status(), 504);
    }
    assert_eq!(begin.elapsed().as_secs(), 60);

    // The body of a user that may not write isn't read.
    let house = House::new().await;
    let request = Request::post(MAPS).body(endless()).unwrap();
    assert_eq!(house.server.handle(request, Some(user("jane"))).await.status(), 403);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_leaves_seat_and_queue() {
    let house = open_house().await;
    let mut noisy = hang(&house, "noisy", 400);
    tokio::task::yield_now().await;
    let mut waiting = hang(&house, "other", 100);
    tokio::task::yield_now().await;
    waiting.abort_all();
    while waiting.join_next().await.is_some() {}
    noisy.abort_all();
    while noisy.join_next().await.is_some() {}
    let metrics = text(house.get("/metrics").await).await;
    for gauge in ["current_inqueue_requests", "current_executing_requests"] {
        let level = "{priority_level=\"global-default\",flow_schema=\"global-default\"} 0\n";
        assert!(metrics.contains(&format!("apiserver_flowcontrol_{gauge}{level}")), "{metrics}");
    }
    assert!(metrics.contains("current_executing_seats{priority_level=\"global-default\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn answers_name_their_class_and_schemas_count_as_soon_as_they_are_written() {
    let house = open_house().await;
    let uid = async |path: &str| {
        let (code, object) =
            house.ask("GET", &format!("/apis/flowcontrol.apiserver.k8s.io/v1/{path}"), None).await;
        assert_eq!(code, 200, "{object}");
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    };
    let class = async |who: UserInfo, path: &str| {
        let answer = ask(&house, who, "GET", path).await;
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        (header("x-kubernetes-pf-flowschema-uid"), header("x-kubernetes-pf-prioritylevel-uid"))
    };
    let of = async |schema: &str, level: &str| {
        (
            uid(&format!("flowschemas/{schema}")).await,
            uid(&format!("prioritylevelconfigurations/{level}")).await,
        )
    };
    assert_eq!(class(crate::house::admin(), MAPS).await, of("exempt", "exempt").await);
    assert_eq!(class(user("a"), "/readyz").await, of("probes", "exempt").await);
    assert_eq!(class(user("a"), "/apis").await, of("global-default", "global-default").await);
    assert_eq!(class(user("a"), "/api/v1/nowhere").await, of("global-default", "global-default").await);
    assert_eq!(class(node("n1"), "/api/v1/nodes/n1").await, of("system-node-high", "node-high").await);
    assert_eq!(class(node("n1"), "/api/v1/pods").await, of("system-nodes", "system").await);
    let account = UserInfo::new("system:serviceaccount:kube-system:dns", ["system:serviceaccounts"]);
    assert_eq!(class(account, MAPS).await, of("kube-system-service-accounts", "workload-high").await);

    let level = json!({"kind": "PriorityLevelConfiguration", "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": "none"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 0,
        "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}}}});
    let group = "/apis/flowcontrol.apiserver.k8s.io/v1";
    assert_eq!(house.ask("POST", &format!("{group}/prioritylevelconfigurations"), Some(level)).await.0, 201);
    let schema = json!({"kind": "FlowSchema", "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "metadata": {"name": "jail"}, "spec": {"matchingPrecedence": 50, "priorityLevelConfiguration": {"name": "none"},
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "mallory"}}], "resourceRules": [
        {"verbs": ["list"], "apiGroups": [""], "resources": ["configmaps"], "namespaces": ["*"]}]}]}});
    assert_eq!(house.ask("POST", &format!("{group}/flowschemas"), Some(schema)).await.0, 201);
    assert_eq!(ask(&house, user("mallory"), "GET", MAPS).await.status(), 429);
    assert_eq!(ask(&house, user("mallory"), "GET", &format!("{MAPS}/kube-root-ca.crt")).await.status(), 404);
    assert_eq!(ask(&house, user("a"), "GET", MAPS).await.status(), 200);
    assert_eq!(house.ask("DELETE", &format!("{group}/flowschemas/jail"), None).await.0, 200);
    assert_eq!(ask(&house, user("mallory"), "GET", MAPS).await.status(), 200);
}

#[tokio::test]
async fn a_time_that_makes_no_sense_is_refused() {
    let house = open_house().await;
    assert_eq!(ask(&house, user("a"), "GET", &format!("{MAPS}?timeout=soon")).await.status(), 400);
    assert_eq!(ask(&house, user("a"), "GET", &format!("{MAPS}?timeout=1h")).await.status(), 200);
}
