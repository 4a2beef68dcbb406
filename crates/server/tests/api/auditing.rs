//! What an audit records of requests: by its policy, from when they come until their answers are over.

use std::sync::{Arc, Mutex};

use audit::{Auditor, Policy, Sink};
use bytes::Bytes;
use futures::{FutureExt, stream};
use http::Request;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use machinery::Object;
use objects::{Delete, TypedRef, Write};
use serde_json::{Value, json};
use server::UserInfo;
use tokio::sync::Notify;

use crate::house::{House, admin, body_of, client_without_name, text};
use crate::policies::{map, matching, policy};

/// Keeps the events that it gets.
#[derive(Default)]
pub struct Recorder {
    events: Mutex<Vec<Value>>,
    came: Notify,
}

impl Sink for Recorder {
    fn take(&self, event: &Bytes) {
        assert!(!event.contains(&b'\n'), "an event is one line");
        self.events.lock().unwrap().push(serde_json::from_slice(event).unwrap());
        self.came.notify_one();
    }
}

impl Recorder {
    /// One that tells this recorder what these rules want to know.
    pub fn auditor(self: &Arc<Self>, rules: &str) -> Auditor {
        let policy = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n{rules}\n");
        let sink: Arc<dyn Sink> = self.clone();
        Auditor::new(Policy::parse(policy.as_bytes()).unwrap(), vec![sink])
    }

    /// The events so far, which are forgotten.
    pub fn drain(&self) -> Vec<Value> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    /// The first event, once there is one.
    pub async fn next(&self) -> Value {
        loop {
            if let Some(first) = self.drain().into_iter().next() {
                return first;
            }
            self.came.notified().await;
        }
    }
}

async fn house(rules: &str) -> (House, Arc<Recorder>) {
    let recorder = Arc::new(Recorder::default());
    let house = House::audited(client_without_name(), recorder.auditor(rules)).await;
    recorder.drain();
    (house, recorder)
}

fn jane() -> UserInfo {
    UserInfo::new("jane", ["people"])
}

/// One field of all events.
fn all(events: &[Value], pointer: &str) -> Vec<Value> {
    events.iter().map(|event| event.pointer(pointer).cloned().unwrap_or_default()).collect()
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

#[tokio::test]
async fn each_level_tells_as_much_as_it_says() {
    let (house, recorder) = house(
        "- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: Request, verbs: [patch]}
- {level: None, verbs: [get], omitStages: [RequestReceived]}
- {level: RequestResponse, omitManagedFields: true}",
    )
    .await;
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}});
    assert_eq!(house.ask("POST", &format!("{MAPS}?fieldManager=me"), Some(map.clone())).await.0, 201);
    let events = recorder.drain();
    assert_eq!(all(&events, "/stage"), ["RequestReceived", "ResponseComplete"]);
    let [received, complete] = &events[..] else { unreachable!() };
    assert_eq!(received["auditID"], complete["auditID"]);
    assert!(
        received.get("requestObject").is_none() && received.get("responseStatus").is_none(),
        "{received}"
    );
    assert_eq!(complete["requestURI"], format!("{MAPS}?fieldManager=me"));
    assert_eq!((&complete["verb"], &complete["level"]), (&json!("create"), &json!("RequestResponse")));
    let reference =
        json!({"resource": "configmaps", "namespace": "default", "name": "m", "apiVersion": "v1"});
    assert_eq!(complete["objectRef"], reference);
    assert_eq!(
        complete["user"],
        json!({"username": "admin", "groups": ["system:masters", "system:authenticated"]})
    );
    assert_eq!(complete["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(complete["requestObject"], map);
    assert_eq!(complete["responseObject"]["data"], json!({"a": "b"}));
    let metadata = complete["responseObject"]["metadata"].as_object().unwrap();
    assert!(metadata.contains_key("uid") && !metadata.contains_key("managedFields"), "{metadata:?}");
    let annotations = json!({"authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": ""});
    assert_eq!(complete["annotations"], annotations);
    let time = complete["stageTimestamp"].as_str().unwrap();
    assert!(time.len() == "2026-01-02T03:04:05.000006Z".len() && time.ends_with('Z'), "{time}");

    assert_eq!(house.ask("PATCH", &format!("{MAPS}/m"), Some(json!({"data": {"a": "c"}}))).await.0, 200);
    let events = recorder.drain();
    assert_eq!(events[1]["requestObject"], json!({"data": {"a": "c"}}));
    assert!(events[1].get("responseObject").is_none(), "{}", events[1]);

    let secret = json!({"metadata": {"name": "s"}, "stringData": {"key": "c0ffee"}});
    assert_eq!(house.ask("POST", SECRETS, Some(secret)).await.0, 201);
    assert_eq!(house.ask("GET", &format!("{SECRETS}/s"), None).await.0, 200);
    let events = recorder.drain();
    let names = [Value::Null, json!("s"), json!("s"), json!("s")];
    assert_eq!(all(&events, "/objectRef/name"), names, "a create's path doesn't have it");
    // Neither as it was sent nor in base64.
    let told = json!(events).to_string();
    assert!(!told.contains("c0ffee") && !told.contains("YzBmZmVl"), "{told}");

    assert_eq!(house.ask("GET", &format!("{MAPS}/m"), None).await.0, 200);
    assert_eq!(recorder.drain(), Vec::<Value>::new(), "of level None nothing is recorded");
}

#[tokio::test]
async fn what_is_refused_is_told_with_who_asked_and_as_whom() {
    let (house, recorder) = house("- {level: Metadata, omitStages: [RequestReceived]}").await;
    assert_eq!(house.ask_as(jane(), "GET", &format!("{MAPS}/m"), None).await.0, 403);
    let events = recorder.drain();
    assert_eq!(all(&events, "/stage"), ["ResponseComplete"]);
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    let status = &events[0]["responseStatus"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(403), &json!("Forbidden")));
    assert!(status.get("kind").is_none() && status["message"].as_str().unwrap().contains("jane"), "{status}");

    let request = Request::get(MAPS).header("impersonate-user", "jane").body(body_of("")).unwrap();
    assert_eq!(house.server.handle(request, Some(admin())).await.status(), 403);
    let events = recorder.drain();
    assert_eq!(all(&events, "/user/username"), ["admin"]);
    assert_eq!(all(&events, "/impersonatedUser/username"), ["jane"]);

    let request = Request::get("/api/v1/nodes").header("audit-id", "mine").body(body_of("")).unwrap();
    let answer = house.server.handle(request, None).await;
    assert_eq!((answer.status().as_u16(), &answer.headers()["audit-id"]), (401, &"mine".parse().unwrap()));
    let events = recorder.drain();
    assert_eq!(
        (all(&events, "/stage"), all(&events, "/auditID")),
        (vec![json!("ResponseStarted")], vec![json!("mine")])
    );
    assert_eq!(events[0]["user"], json!({}));
    assert_eq!(events[0]["responseStatus"]["message"], "Authentication failed");

    // What isn't there has an event too, and a name that is taken is recorded.
    assert_eq!(house.ask("GET", "/apis/no.such/v1/things/t", None).await.0, 404);
    assert_eq!(all(&recorder.drain(), "/objectRef/apiGroup"), ["no.such"]);
    for code in [201, 409] {
        let map = json!({"metadata": {"name": "m"}});
        assert_eq!(house.ask("POST", MAPS, Some(map)).await.0, code);
        assert_eq!(all(&recorder.drain(), "/objectRef/name"), ["m"], "{code}");
    }
}

#[tokio::test]
async fn what_admission_says_for_the_audit_stands_in_it() {
    let (house, recorder) =
        house("- {level: Metadata, verbs: [create], omitStages: [RequestReceived]}").await;
    policy(
        &house,
        json!({"matchConstraints": matching(&["CREATE"], &["configmaps"]),
            "validations": [{"expression": "object.data.k == 'v'", "message": "odd"}],
            "auditAnnotations": [{"key": "what", "valueExpression": "'it has ' + object.data.k"}]}),
        json!({"policyName": "p", "validationActions": ["Audit"]}),
    )
    .await;
    let label = json!({"metadata": {"labels": {"pod-security.kubernetes.io/audit": "baseline"}}});
    assert_eq!(house.ask("PATCH", "/api/v1/namespaces/default", Some(label)).await.0, 200);
    recorder.drain();
    assert_eq!(house.ask("POST", MAPS, Some(map("m", json!({"k": "w"})))).await.0, 201);
    let annotations = &recorder.drain()[0]["annotations"];
    assert_eq!(annotations["p/what"], "it has w");
    let failures = annotations["validation.policy.admission.k8s.io/validation_failure"].as_str().unwrap();
    let failures: Value = serde_json::from_str(failures).unwrap();
    let failure = json!({"message": "odd", "policy": "p", "binding": "b", "validationActions": ["Audit"]});
    assert_eq!(failures, json!([failure]));

    let pod = json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": [{"name": "c", "image": "i"}]}});
    assert_eq!(house.ask("POST", "/api/v1/namespaces/default/pods", Some(pod)).await.0, 201);
    let told = &recorder.drain()[0]["annotations"]["pod-security.kubernetes.io/audit-violations"];
    assert!(told.as_str().unwrap().starts_with("would violate PodSecurity \"baseline:latest\": "), "{told}");
}

#[tokio::test]
async fn what_parts_of_the_process_change_is_told_too() {
    let (house, recorder) = house(
        "- {level: None, userGroups: ['system:nodes'], verbs: [patch]}
- {level: Metadata, resources: [{resources: [secrets]}]}
- {level: Request, omitStages: [RequestReceived]}",
    )
    .await;
    let writer = house.server.writer();
    let object = |value: Value| Object::from_value(value).unwrap();
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"generateName": "m-", "namespace": "default"}});
    let made = writer.write("system:kube-scheduler", Write::Create(object(map.clone()))).await.unwrap();
    let events = recorder.drain();
    assert_eq!(all(&events, "/stage"), ["ResponseComplete"]);
    assert_eq!((&events[0]["requestObject"], &events[0]["requestURI"]), (&map, &json!(MAPS)));
    assert_eq!(
        events[0]["user"],
        json!({"username": "system:kube-scheduler", "groups": ["system:authenticated"]})
    );
    assert_eq!(events[0]["objectRef"]["name"], made.name());
    assert_eq!(events[0]["responseStatus"]["code"], 201);

    let secret = json!({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s", "namespace": "default"},
        "stringData": {"key": "c0ffee"}});
    writer.write("system:kube-controller-manager", Write::Create(object(secret))).await.unwrap();
    let events = recorder.drain();
    assert_eq!(all(&events, "/stage"), ["RequestReceived", "ResponseComplete"]);
    assert!(!json!(events).to_string().contains("c0ffee"));

    // A host's agent may not, and what the policy doesn't want to know isn't told.
    let subject = TypedRef {
        api_version: "v1".into(),
        kind: "ConfigMap".into(),
        namespace: "default".into(),
        name: made.name().into(),
    };
    let delete = Write::Delete { subject: subject.clone(), options: Delete::default() };
    assert!(writer.write("system:node:n1", delete).await.is_err());
    let events = recorder.drain();
    assert_eq!(all(&events, "/responseStatus/code"), [403]);
    assert_eq!(events[0]["annotations"]["authorization.k8s.io/decision"], "forbid");
    assert_eq!(events[0]["requestURI"], format!("{MAPS}/{}", made.name()));
    let patch = Write::Merge { subject, subresource: "", patch: json!({"data": {}}) };
    assert!(writer.write("system:node:n1", patch).await.is_err());
    assert_eq!(recorder.drain(), Vec::<Value>::new());
}

#[tokio::test]
async fn a_watch_begins_and_ends_and_who_goes_away_is_told_of() {
    let (house, recorder) = house("- {level: RequestResponse}").await;
    let watch = house.get(&format!("{MAPS}?watch=1")).await;
    let begun = recorder.drain();
    assert_eq!(all(&begun, "/stage"), ["RequestReceived", "ResponseStarted"]);
    drop(watch);
    let over = recorder.drain();
    assert_eq!(
        (all(&over, "/stage"), all(&over, "/verb")),
        (vec![json!("ResponseComplete")], vec![json!("watch")])
    );
    assert!(
        over[0].get("responseObject").is_none(),
        "a watch has no end that could be recorded: {}",
        over[0]
    );

    let never = stream::pending::<Result<Frame<Bytes>, hyper::Error>>();
    let request = Request::post(MAPS).body(StreamBody::new(never).boxed_unsync()).unwrap();
    assert!(house.server.handle(request, Some(admin())).now_or_never().is_none());
    let events = recorder.drain();
    assert_eq!(all(&events, "/stage"), ["RequestReceived", "ResponseComplete"]);
    assert_eq!(events[1]["responseStatus"]["code"], 499);
}

#[tokio::test]
async fn what_is_too_long_or_packed_is_told_as_it_can_be() {
    let (house, recorder) = house("- {level: RequestResponse, omitStages: [RequestReceived]}").await;
    for n in 0..4 {
        let map = json!({"metadata": {"name": format!("m{n}")}, "data": {"a": "x".repeat(900 << 10)}});
        assert_eq!(house.ask("POST", MAPS, Some(map)).await.0, 201);
    }
    recorder.drain();
    let ask = async |path: &str| {
        let request = Request::get(path).header("accept-encoding", "gzip").body(body_of("")).unwrap();
        text(house.server.handle(request, Some(admin())).await).await
    };
    ask(&format!("{MAPS}/m0")).await;
    let events = recorder.drain();
    assert_eq!(
        events[0]["responseObject"]["metadata"]["name"], "m0",
        "it is recorded as it is, not as it is packed"
    );
    ask(MAPS).await;
    let events = recorder.drain();
    assert!(events[0].get("responseObject").is_none());
    assert_eq!(events[0]["annotations"]["audit.k8s.io/truncated"], "true");
}

#[tokio::test]
async fn every_answer_has_an_id_whether_anybody_is_told_or_not() {
    let house = House::new().await;
    let answer = house.get("/version").await;
    assert_eq!(answer.headers()["audit-id"].len(), 36);
}
