//! How containers live and end: their last words, deadlines, probes until the end, and containers added later.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use serde_json::{Value, json};
use support::{PATIENCE, TestHost, can_mount, is_ready, main_status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn ended(pod: &Value) -> bool {
    matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
}

#[tokio::test(flavor = "multi_thread")]
async fn last_words_are_read_from_the_containers_own_file_or_its_output() {
    let mut host = TestHost::start();
    let there_before = std::path::Path::new("/dev/termination-log").exists();
    let fallback = "FallbackToLogsOnError";
    for (name, command, more, message) in [
        (
            "output",
            "echo out; echo oops >&2; exit 3",
            json!({"terminationMessagePolicy": fallback}),
            "out\noops\n",
        ),
        ("well", "echo out", json!({"terminationMessagePolicy": fallback}), ""),
        ("silent", "echo out; exit 1", json!({}), ""),
        (
            "file",
            "echo -n why > /dev/termination-log; echo out; exit 1",
            json!({"terminationMessagePolicy": fallback}),
            "why",
        ),
        (
            "elsewhere",
            "echo -n fine > /tmp/holdfast-words",
            json!({"terminationMessagePath": "/tmp/holdfast-words"}),
            "fine",
        ),
    ] {
        if name.ends_with('e') && !can_mount() {
            continue;
        }
        let mut container = json!({"command": ["sh", "-c", command]});
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        host.pod(name, container, json!({"restartPolicy": "Never"}));
        let pod = host.until(name, "ended", ended).await;
        let said = main_status(&pod)["state"]["terminated"]["message"].as_str().unwrap_or_default();
        if name == "output" {
            // Two pipes: it can't be known which came first.
            assert!(said == message || said == "oops\nout\n", "{said:?}");
        } else {
            assert_eq!(said, message, "{name}");
        }
    }
    assert_eq!(
        std::path::Path::new("/dev/termination-log").exists(),
        there_before,
        "nothing is made on the host"
    );
    assert!(!std::path::Path::new("/tmp/holdfast-words").exists());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_past_its_deadline_fails_once_its_processes_are_dead() {
    let mut host = TestHost::start();
    let spec = json!({"activeDeadlineSeconds": 1, "terminationGracePeriodSeconds": 1,
        "initContainers": [{"name": "i", "command": ["sleep", "1000"]}]});
    host.pod("a", json!({"command": ["sleep", "1000"]}), spec);
    let pod = host.until("a", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "DeadlineExceeded");
    assert_eq!(pod["status"]["message"], "Pod was active on the node longer than the specified deadline");
    let init = &pod["status"]["initContainerStatuses"][0]["state"];
    assert!(init["terminated"].is_object(), "{init}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_added_later_runs_once_and_can_be_read() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "ready", is_ready).await;
    host.change("a", |pod| {
        pod["spec"]["ephemeralContainers"] =
            json!([{"name": "dbg", "command": ["sh", "-c", "echo hi; read word; echo got $word; exit 4"],
                "image": "x", "stdin": true}]);
    });
    let state =
        |pod: &Value, kind: &str| pod["status"]["ephemeralContainerStatuses"][0]["state"][kind].is_object();
    let pod = host.until("a", "running", |pod| state(pod, "running")).await;
    let told = &pod["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(
        (&told["name"], &told["ready"], &told["restartCount"]),
        (&json!("dbg"), &json!(false), &json!(0))
    );
    assert!(is_ready(&pod), "it changes nothing of the pod's readiness");
    host.until_event("Started", |message| message == "Container started: dbg").await;
    host.shut_down().await;
    host.switch_on();
    let pod = host.until("a", "over", |pod| state(pod, "terminated") && is_ready(pod)).await;
    assert_eq!(pod["status"]["ephemeralContainerStatuses"][0]["restartCount"], 0, "it never starts again");
    assert_eq!(main_status(&pod)["restartCount"], 1);
    host.shut_down().await;
}

/// A server that answers each path as told, and keeps what it was asked.
async fn server(host: &TestHost) -> (u16, std::sync::Arc<std::sync::Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((format!("127.{}.1.1", host.net), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked: std::sync::Arc<std::sync::Mutex<Vec<String>>> = std::sync::Arc::default();
    let list = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap_or(0);
            let text = String::from_utf8_lossy(&head[..read]).into_owned();
            let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
            list.lock().unwrap().push(text);
            let head = match path.as_str() {
                "/to-bad" => "302 Found\r\nlocation: /bad",
                "/to-good" => "301 Moved\r\nlocation: good",
                "/away" => "302 Found\r\nlocation: http://192.0.2.1/x",
                "/round" => "302 Found\r\nlocation: /round",
                "/good" => "200 OK",
                _ => "500 Broken",
            };
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_follows_where_it_is_sent_at_the_same_host() {
    let mut host = TestHost::start();
    let (port, asked) = server(&host).await;
    let address = format!("127.{}.1.1", host.net);
    let probe = |path: &str| {
        json!({"httpGet": {"path": path, "port": port, "host": address,
            "httpHeaders": [{"name": "User-Agent", "value": ""}]}, "periodSeconds": 1, "failureThreshold": 1})
    };
    for (name, path, ready) in [
        ("good", "/to-good", true),
        ("away", "/away", true),
        ("bad", "/to-bad", false),
        ("round", "/round", false),
    ] {
        host.pod(name, json!({"command": ["sleep", "1000"], "readinessProbe": probe(path)}), json!({}));
        if ready {
            host.until(name, "ready", is_ready).await;
            continue;
        }
        let why = if name == "bad" { "statuscode: 500" } else { "stopped after 10 redirects" };
        let told = |message: &str| message.starts_with("Readiness probe failed") && message.ends_with(why);
        host.until_event("Unhealthy", told).await;
        assert!(!is_ready(&host.writer.get("pods", "default", name).unwrap()), "{name}");
    }
    let warning = "Readiness probe warning: Probe terminated redirects, Response body:";
    host.until_event("ProbeWarning", |message| message.starts_with(warning)).await;
    assert!(asked.lock().unwrap().iter().all(|text| !text.to_lowercase().contains("user-agent")));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_ask_by_http_and_tcp_and_an_end_begins_with_the_signal_that_is_named() {
    let mut host = TestHost::start();
    let (port, asked) = server(&host).await;
    let address = format!("127.{}.1.1", host.net);
    let get = |path: &str| json!({"httpGet": {"path": path, "port": port, "host": address}});
    host.pod(
        "bad",
        json!({"command": ["sleep", "1000"], "lifecycle": {"postStart": get("/bad")}}),
        json!({}),
    );
    let told =
        |message: &str| message.starts_with("PostStartHook failed") && message.ends_with("statuscode: 500");
    host.until_event("FailedPostStartHook", told).await;

    let signal = host.folder.path().join("signal");
    let command = format!(
        "trap 'echo USR1 > {}; exit 0' USR1; trap '' TERM; : > trapped; while :; do sleep 0.05; done",
        signal.display()
    );
    let hooks = json!({"postStart": get("/good"), "stopSignal": "SIGUSR1",
        "preStop": {"tcpSocket": {"port": port, "host": address}}});
    let uid = host.pod("good", json!({"command": ["sh", "-c", command], "lifecycle": hooks}), json!({}));
    host.until("good", "ready", is_ready).await;
    host.until_file(&host.work(&uid).join("trapped"), |_| true).await;
    assert!(asked.lock().unwrap().iter().any(|text| text.starts_with("GET /good ")));
    assert!(!asked.lock().unwrap().iter().any(String::is_empty), "nobody only connected yet");
    host.delete("good", 30);
    host.until_gone("good").await;
    assert_eq!(std::fs::read_to_string(&signal).unwrap(), "USR1\n");
    let connected = async {
        while !asked.lock().unwrap().iter().any(String::is_empty) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, connected).await.unwrap();
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_asks_whether_a_pod_that_ends_is_well() {
    let mut host = TestHost::start();
    let flag = host.folder.path().join("ending");
    // From the hook on it is sick; were that looked at, it would be killed before the hook is over.
    let hook = format!("touch {0}; sleep 3; echo hooked >> {0}", flag.display());
    let well = format!("test ! -e {}", flag.display());
    let container = json!({
        "command": ["sleep", "1000"],
        "lifecycle": {"preStop": {"exec": {"command": ["sh", "-c", hook]}}},
        "livenessProbe": {"exec": {"command": ["sh", "-c", well]}, "periodSeconds": 1, "failureThreshold": 1,
            "terminationGracePeriodSeconds": 1},
    });
    host.pod("a", container, json!({}));
    host.until("a", "ready", is_ready).await;
    host.delete("a", 30);
    host.until_gone("a").await;
    assert_eq!(std::fs::read_to_string(&flag).unwrap(), "hooked\n");
    let events = host.events();
    let wrong = |(_, message): &(String, String)| message.to_lowercase().contains("liveness");
    assert!(!events.iter().any(wrong), "{events:?}");
    host.shut_down().await;
}
