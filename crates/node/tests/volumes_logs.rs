//! Environment, volumes, host names, and the agent's own API.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::sync::Arc;

use http_body_util::BodyExt;
use serde_json::{Value, json};
use support::port::{ADMIN, ask, send, text};
use support::{TestHost, can_mount, is_ready, main_status};

fn config_map(host: &TestHost, data: Value) {
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "settings", "namespace": "default"}, "data": data});
    host.writer.put(&map);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_what_the_spec_says() {
    let mut host = TestHost::start();
    let service = json!({"kind": "Service", "apiVersion": "v1",
        "metadata": {"name": "my-db", "namespace": "default"},
        "spec": {"clusterIP": "127.96.0.9", "ports": [{"port": 5432}]}});
    host.writer.put(&service);
    let secret = json!({"kind": "Secret", "apiVersion": "v1",
        "metadata": {"name": "key", "namespace": "default"}, "data": {"TOKEN": "czNjcmV0"}});
    host.writer.put(&secret);
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let container = json!({
        "command": ["sh", "-c", "env > \"$1\"; exec sleep 1000", "sh"],
        "args": ["$(HOME)/out-$(FULL)"],
        "resources": {"limits": {"memory": "64Mi"}},
        "envFrom": [{"prefix": "S_", "secretRef": {"name": "key"}}],
        "env": [
            {"name": "FIRST", "value": "1"},
            {"name": "FULL", "value": "$(FIRST)-$(UNKNOWN)-$$(FIRST)"},
            {"name": "LABEL", "valueFrom": field("metadata.labels['app']")},
            {"name": "POD_IP", "valueFrom": field("status.podIP")},
            {"name": "NODE", "valueFrom": field("spec.nodeName")},
            {"name": "SETTING", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "a"}}},
            {"name": "ABSENT",
                "valueFrom": {"configMapKeyRef": {"name": "nope", "key": "a", "optional": true}}},
            {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        ],
    });
    let uid = host.pod("a", container, json!({}));
    let missing = host
        .until("a", "a missing ConfigMap", |pod| {
            main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let message = &main_status(&missing)["state"]["waiting"]["message"];
    assert_eq!(message, "configmap \"settings\" not found");
    config_map(&host, json!({"a": "x y"}));
    let pod = host.until("a", "ready", is_ready).await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    let path = host.work(&uid).join("out-1-$(UNKNOWN)-$(FIRST)");
    let text = host.until_file(&path, |text| text.contains("MEMORY=")).await;
    let address = pod["status"]["podIP"].as_str().unwrap();
    for line in [
        "FIRST=1",
        "LABEL=x",
        &format!("POD_IP={address}"),
        "NODE=n1",
        "SETTING=x y",
        "MEMORY=67108864",
        "S_TOKEN=s3cret",
        "HOSTNAME=a",
        "KUBERNETES_SERVICE_HOST=127.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "MY_DB_SERVICE_HOST=127.96.0.9",
        "MY_DB_SERVICE_PORT=5432",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}: {text}");
    }
    for absent in ["ABSENT=", "CARGO", "RUST"] {
        assert!(!text.lines().any(|l| l.starts_with(absent)), "{absent}: {text}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_lie_at_their_mount_paths_and_nowhere_else() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    config_map(&host, json!({"a.conf": "from the map", "b.conf": "b"}));
    std::fs::write(host.folder.path().join("from-host"), "the host's").unwrap();
    let command = "{ hostname; cat /etc/holdfast-test/a.conf; echo; cat /holdfast-test/deep/er/b; echo; \
                   cat /holdfast-host/from-host; echo; touch /data/x && ls /data; ls -d /etc/passwd /usr/bin; \
                   echo no > /etc/holdfast-test/a.conf || echo read-only; } > report 2>&1; \
                   echo done >> report; exec sleep 1000";
    let container = json!({
        "command": ["sh", "-c", command],
        "readinessProbe": {"exec": {"command": ["cat", "/etc/holdfast-test/a.conf"]}},
        "volumeMounts": [
            {"name": "settings", "mountPath": "/etc/holdfast-test"},
            {"name": "settings", "mountPath": "/holdfast-test/deep/er/b", "subPath": "b.conf"},
            {"name": "data", "mountPath": "/data"},
            {"name": "host", "mountPath": "/holdfast-host", "readOnly": true},
        ],
    });
    let spec = json!({"volumes": [
        {"name": "settings", "configMap": {"name": "settings"}},
        {"name": "data", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": host.folder.path(), "type": "Directory"}},
    ]});
    let uid = host.pod("web-0", container, spec);
    host.until("web-0", "ready by a command beside it", is_ready).await;
    let report = host.until_file(&host.work(&uid).join("report"), |text| text.ends_with("done\n")).await;
    for line in
        ["web-0", "from the map", "b", "the host's", "x", "/etc/passwd", "/usr/bin", "read-only", "done"]
    {
        assert!(report.lines().any(|l| l == line), "{line}: {report}");
    }
    for path in ["/etc/holdfast-test", "/holdfast-test", "/holdfast-host"] {
        assert!(!std::path::Path::new(path).exists(), "{path} was made on the host");
    }
    host.delete("web-0", 0);
    host.until_gone("web-0").await;
    assert!(host.folder.path().join("from-host").exists(), "a hostPath stays");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_finds_its_token_the_certificate_and_its_namespace_where_clients_look() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    config_map(&host, json!({"ca.crt": "a certificate"}));
    let command = "cd /var/run/secrets/kubernetes.io/serviceaccount; \
                   { cat token; echo; cat ca.crt; echo; cat namespace; echo; } > $HOME/report 2>&1; \
                   echo done >> $HOME/report; exec sleep 1000";
    let container = json!({
        "command": ["sh", "-c", command],
        "volumeMounts": [{"name": "kube-api-access-x7abc", "readOnly": true,
            "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    });
    let namespace = json!({"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}});
    let spec = json!({"serviceAccountName": "robot", "volumes": [
        {"name": "kube-api-access-x7abc", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "settings", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [namespace]}},
        ]}},
    ]});
    let uid = host.pod("web-0", container, spec);
    let report = host.until_file(&host.work(&uid).join("report"), |text| text.ends_with("done\n")).await;
    assert_eq!(report, "default/robot web-0  3607\na certificate\ndefault\ndone\n");
    host.shut_down().await;
}

#[tokio::test]
async fn a_token_is_renewed_where_the_pod_reads_it() {
    let mut host = TestHost::start();
    let spec = json!({"serviceAccountName": "robot", "volumes": [{"name": "access", "projected": {
        "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}]}}]});
    let uid = host.pod("web-0", json!({"command": ["sleep", "1000"]}), spec);
    host.until("web-0", "ready", is_ready).await;
    let token = host.work(&uid).with_file_name("volumes").join("access/token");
    assert_eq!(std::fs::read_to_string(&token).unwrap(), "default/robot web-0  1000");
    for (seconds, expected) in
        [(810, "default/robot web-0  1000 again 1"), (810, "default/robot web-0  1000 again 2")]
    {
        // A leap, and files are looked after at the latest 20 seconds later.
        tokio::time::pause();
        tokio::time::advance(std::time::Duration::from_secs(seconds + 20)).await;
        tokio::time::resume();
        host.until_file(&token, |text| text == expected).await;
    }
    let pod = host.writer.get("pods", "default", "web-0").unwrap();
    assert_eq!(main_status(&pod)["restartCount"], 0, "the container went on");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_has_names_of_its_own_and_the_host_keeps_its() {
    if !can_mount() {
        return;
    }
    let of_machine = || ["/etc/hosts", "/etc/resolv.conf"].map(|path| std::fs::read(path).ok());
    let before = of_machine();
    let mut host = TestHost::start();
    let command = "echo 127.0.0.9 added >> /etc/hosts; cat /etc/hosts /etc/resolv.conf > report; \
                   getent hosts alias.test >> report; uname -n >> report; echo of $HOSTNAME >> report; \
                   echo done >> report; exec sleep 1000";
    let spec = json!({
        "subdomain": "webs", "setHostnameAsFQDN": true,
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["alias.test"]}],
        "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.53"]},
    });
    let uid = host.pod("web-1", json!({"command": ["sh", "-c", command]}), spec);
    let report = host.until_file(&host.work(&uid).join("report"), |text| text.ends_with("done\n")).await;
    let pod = host.until("web-1", "ready", is_ready).await;
    let address = pod["status"]["podIP"].as_str().unwrap();
    for line in [
        "127.0.0.1\tlocalhost",
        &format!("{address}\tweb-1.webs.default.svc.cluster.local\tweb-1"),
        "127.0.0.9 added",
        "nameserver 192.0.2.53",
        "web-1.webs.default.svc.cluster.local",
        "of web-1.webs.default.svc.cluster.local",
    ] {
        assert!(report.lines().any(|l| l == line), "{line}: {report}");
    }
    assert_eq!(report.matches("192.0.2.7").count(), 2, "in the file, and found by it: {report}");
    assert_eq!(before, of_machine(), "the machine's own files are as they were");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_port_opens_to_no_token_or_password_and_to_no_other_authority() {
    let mut host = TestHost::start();
    for path in
        ["/healthz", "/pods", "/metrics/resource", "/containerLogs/default/a/main", "/exec/default/a/main"]
    {
        for shown in [None, Some("Basic YWRtaW46YWRtaW4="), Some("Bearer nonsense"), Some("Bearer a.b.c")] {
            let answer = send(&host, host.authority.client(None), shown, path).await.unwrap();
            assert_eq!(answer.status(), 401, "{path} {shown:?}");
        }
        let mut forged = rustls::ClientConfig::clone(&host.authority.client(None));
        let forger = support::Authority::default();
        forged.client_auth_cert_resolver = forger.client(ADMIN).client_auth_cert_resolver.clone();
        assert!(send(&host, Arc::new(forged), None, path).await.is_err(), "{path}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_are_read_and_followed_by_those_who_may() {
    let mut host = TestHost::start();
    let go = host.folder.path().join("go");
    let command = format!(
        "echo one; echo two >&2; while ! test -e {}; do sleep 0.02; done; echo three; exit 1",
        go.display()
    );
    host.pod("a", json!({"command": ["sh", "-c", command]}), json!({"restartPolicy": "Never"}));
    host.until("a", "ready", is_ready).await;
    let path = "/containerLogs/default/a/main";
    for (who, code) in [
        (None, 401),
        (Some(("joe", "people")), 403),
        (Some(("joe", "system:nodes")), 403),
        (Some(("system:node:n2", "system:nodes")), 200),
        (ADMIN, 200),
    ] {
        assert_eq!(ask(&host, who, "/healthz").await.status(), code, "{who:?}");
    }
    let mut following = ask(&host, ADMIN, &format!("{path}?follow=true")).await;
    let mut seen = String::new();
    while !(seen.contains("one\n") && seen.contains("two\n")) {
        let frame = following.body_mut().frame().await.unwrap().unwrap();
        seen.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
    }
    std::fs::write(&go, "").unwrap();
    let rest = text(following).await;
    assert_eq!(rest, "three\n", "and the stream ends with the container");

    host.until("a", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(text(ask(&host, ADMIN, &format!("{path}?tailLines=1")).await).await, "three\n");
    let timed = text(ask(&host, ADMIN, &format!("{path}?tailLines=1&timestamps=true")).await).await;
    assert!(timed.starts_with("20") && timed.ends_with("Z three\n"), "{timed}");
    for (path, code) in [
        ("/containerLogs/default/a/other", 400),
        ("/containerLogs/default/b/main", 404),
        ("/containerLogs/default/a/main?tailLines=x", 400),
        ("/containerLogs/default/a/main?previous=true", 400),
        ("/containerLogs/../../etc/passwd", 404),
        ("/else", 404),
    ] {
        assert_eq!(ask(&host, ADMIN, path).await.status(), code, "{path}");
    }
    let pods: Value = serde_json::from_str(&text(ask(&host, ADMIN, "/pods").await).await).unwrap();
    assert_eq!(pods["items"][0]["metadata"]["name"], "a");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_keep_nobody_out() {
    let mut host = TestHost::start();
    let address = host.agent.as_ref().unwrap().listening();
    let mut held: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
    for _ in 0..300 {
        held.push(Box::new(tokio::net::TcpStream::connect(address).await.unwrap()));
    }
    let connector = tokio_rustls::TlsConnector::from(host.authority.client(None));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    for _ in 0..300 {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        held.push(Box::new(connector.connect(name.clone(), stream).await.unwrap()));
    }
    assert_eq!(ask(&host, ADMIN, "/healthz").await.status(), 200);
    drop(held);
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn why_there_is_no_log_is_said_as_the_pods_status_says_it() {
    let mut host = TestHost::start();
    let init = json!({"name": "i", "command": ["sleep", "1000"]});
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({"initContainers": [init]}));
    host.pod("b", json!({"command": []}), json!({}));
    let waits = |pod: &Value, reason: &str| main_status(pod)["state"]["waiting"]["reason"] == reason;
    host.until("a", "waits", |pod| waits(pod, "PodInitializing")).await;
    host.until("b", "refused", |pod| waits(pod, "CreateContainerConfigError")).await;
    for (path, why) in [
        ("a/main", "container \"main\" in pod \"a\" is waiting to start: PodInitializing"),
        ("b/main", "container \"main\" in pod \"b\" is waiting to start: CreateContainerConfigError"),
        ("a/main?previous=true", "previous terminated container \"main\" in pod \"a\" not found"),
        ("a/else", "container else is not valid for pod a"),
    ] {
        let answer = ask(&host, ADMIN, &format!("/containerLogs/default/{path}")).await;
        assert_eq!(answer.status(), 400, "{path}");
        assert_eq!(text(answer).await, why);
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_no_log_takes_is_said_to_be_lost_once() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};

    if !nix::unistd::geteuid().is_root() {
        // What is tested is the same for all users.
        return testing::skip("root", "only root may make the device file that stands for a full disk");
    }
    let mut host = TestHost::off();
    let prints =
        "while ! test -e go; do sleep 0.01; done; for n in 1 2 3 4 5; do echo $n; done; exec sleep 1000";
    let uid = host.pod("a", json!({"command": ["sh", "-c", prints]}), json!({}));
    let folder = host.folder.path().join("agent/logs/default_a_uid-of-a/main");
    std::fs::create_dir_all(&folder).unwrap();
    // What /dev/full is: a disk without room.
    let made = mknod(&folder.join("0.log"), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(1, 7));
    let open = std::fs::OpenOptions::new().write(true).open(folder.join("0.log"));
    if made.is_err() || open.is_err() {
        return testing::skip("mounts", "this user may make no device files");
    }
    host.switch_on();
    host.until("a", "ready", is_ready).await;
    std::fs::write(host.work(&uid).join("go"), "").unwrap();
    host.until_event("FailedWriteLog", |message| {
        message == "What container main prints is lost, its log can't be written: No space left on device (os error 28)"
    })
    .await;
    assert_eq!(
        main_status(&host.writer.get("pods", "default", "a").unwrap())["restartCount"],
        0,
        "it goes on"
    );
    assert_eq!(host.events().iter().filter(|(reason, _)| reason == "FailedWriteLog").count(), 1);
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_life_s_log_stays() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sh", "-c", "echo life; exit 1"]}), json!({}));
    host.until("a", "restarted", |pod| main_status(pod)["restartCount"] == 1).await;
    let previous = ask(&host, ADMIN, "/containerLogs/default/a/main?previous=true").await;
    assert_eq!(text(previous).await, "life\n");
    host.shut_down().await;
}

/// Runs the tests of this file without root rights, where they were started with them.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_root_runs_pods() {
    let mut host = TestHost::start();
    if nix::unistd::geteuid().is_root() {
        use std::os::unix::process::CommandExt;
        let me = std::env::current_exe().unwrap();
        let child = std::process::Command::new(me).current_dir("/").uid(65534).gid(65534).output();
        match child {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
            }
            Err(error) => testing::skip(
                "users",
                format_args!("the test's program can't be run by another user: {error}"),
            ),
        }
        host.shut_down().await;
        return;
    }
    config_map(&host, json!({"a": "1"}));
    let container = json!({
        "command": ["sh", "-c", "cat \"$HOLDFAST_VOLUME_SETTINGS/a\" > out; id -u >> out; exec sleep 1000"],
        "readinessProbe": {"exec": {"command": ["test", "-s", "out"]}},
    });
    let spec = json!({"volumes": [{"name": "settings", "configMap": {"name": "settings"}}]});
    let uid = host.pod("a", container, spec);
    host.until("a", "ready", is_ready).await;
    let own = nix::unistd::geteuid();
    host.until_file(&host.work(&uid).join("out"), |text| text == format!("1{own}\n")).await;

    let root = json!({"command": ["id"], "securityContext": {"runAsUser": 0}});
    host.pod("b", root, json!({}));
    let pod = host
        .until("b", "refused", |pod| {
            main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
        })
        .await;
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("runAsUser 0"), "{message}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_uses_is_told_in_the_kubelets_words() {
    let mut host = TestHost::start();
    host.pod("busy", json!({"command": ["sh", "-c", "while :; do :; done"]}), json!({}));
    host.pod("idle", json!({"command": ["sleep", "1000"]}), json!({}));
    for pod in ["busy", "idle"] {
        host.until(pod, "ready", is_ready).await;
    }
    let of = |text: &str, name: &str, pod: &str| -> Option<f64> {
        let labels = format!("{name}{{container=\"main\",namespace=\"default\",pod=\"{pod}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&labels)?.split(' ').next()?.parse().ok())
    };
    let used = async {
        loop {
            let text = text(ask(&host, ADMIN, "/metrics/resource").await).await;
            if of(&text, "container_cpu_usage_seconds_total", "busy").is_some_and(|cpu| cpu > 0.2) {
                break text;
            }
        }
    };
    let used = tokio::time::timeout(std::time::Duration::from_secs(60), used).await.unwrap();
    assert!(of(&used, "container_cpu_usage_seconds_total", "idle").unwrap() < 0.2, "{used}");
    assert!(of(&used, "container_memory_working_set_bytes", "busy").unwrap() > 0.0, "{used}");
    assert!(of(&used, "container_start_time_seconds", "busy").unwrap() > 1e9, "{used}");
    let told = text(ask(&host, ADMIN, "/stats/summary").await).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    let pod = |told: &Value, name: &str| {
        told["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == name).cloned()
    };
    let (busy, node) = (pod(&told, "busy").unwrap(), &told["node"]);
    assert!(busy["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 200_000_000, "{told:#}");
    assert!(busy["cpu"]["usageNanoCores"].as_u64().unwrap() > 10_000_000, "{told:#}");
    assert!(
        busy["memory"]["workingSetBytes"].as_u64().unwrap() > 0
            && busy["process_stats"]["process_count"] == 1
    );
    assert!(node["fs"]["capacityBytes"].as_u64().unwrap() > 0 && node["nodeName"] == "n1", "{told:#}");
    assert!(
        node["rlimit"]["curproc"].as_u64().unwrap() > 1
            && node["memory"]["availableBytes"].as_u64().unwrap() > 0
    );
    let basics = text(ask(&host, ADMIN, "/stats/summary?only_cpu_and_memory=true").await).await;
    assert!(serde_json::from_str::<Value>(&basics).unwrap()["node"].get("fs").is_none(), "{basics}");
    let cadvisor = text(ask(&host, ADMIN, "/metrics/cadvisor").await).await;
    let line = "container_processes{container=\"main\",id=\"/kubepods/poduid-of-busy/main\"";
    assert!(cadvisor.contains(line), "{cadvisor}");
    let node = used.lines().find_map(|line| line.strip_prefix("node_memory_working_set_bytes "));
    assert!(node.unwrap().split(' ').next().unwrap().parse::<f64>().unwrap() > 1e6);
    host.delete("busy", 0);
    host.until_gone("busy").await;
    let after = text(ask(&host, ADMIN, "/metrics/resource").await).await;
    assert_eq!(of(&after, "container_cpu_usage_seconds_total", "busy"), None, "what has ended uses nothing");
    assert!(of(&after, "container_cpu_usage_seconds_total", "idle").is_some());
    let after = text(ask(&host, ADMIN, "/stats/summary").await).await;
    assert!(pod(&serde_json::from_str(&after).unwrap(), "busy").is_none(), "{after}");
    host.shut_down().await;
}
