//! Pods in containerd, on a host whose network is one of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, TcpStream};
use std::path::PathBuf;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use support::cgroups::Top;
use support::containerd::{BOX, on_a_host};
use support::{PATIENCE, TestHost, is_ready, main_status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

fn pod(host: &TestHost, name: &str, container: Value, spec: Value) -> String {
    let mut one = json!({"image": BOX});
    support::merge(&mut one, &container);
    host.contained(name, one, spec)
}

fn script(text: &str) -> Value {
    json!({"command": ["sh", "-c", text]})
}

/// What a web server says; None if it can't be reached.
fn get(address: &str) -> Option<String> {
    let ip: IpAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&(ip, 80).into(), PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.rsplit("\r\n\r\n").next()?.trim().to_owned())
}

/// Runs a command beside a container with that input, by the agent's own API: what it prints, and the status of its end.
async fn exec(host: &TestHost, pod: &str, command: &[&str], input: &str) -> (String, Value) {
    let words: String = command.iter().map(|word| format!("&command={word}")).collect();
    let address = host.agent.as_ref().unwrap().listening();
    let url = format!("/exec/default/{pod}/main?input=1&output=1&error=1{words}");
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let tls = host.authority.client(Some(("kube-apiserver", "system:masters")));
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await.unwrap();
    let request = format!(
        "GET {url} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    socket.send(Message::Binary([&[0], input.as_bytes()].concat().into())).await.unwrap();
    // The input is over.
    socket.send(Message::Binary(vec![255, 0].into())).await.unwrap();
    let (mut printed, mut status) = (Vec::new(), Value::Null);
    while let Some(Ok(message)) = socket.next().await {
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((1 | 2, text)) => printed.extend_from_slice(text),
            Some((3, text)) => status = serde_json::from_slice(text).unwrap(),
            _ => {}
        }
    }
    (String::from_utf8(printed).unwrap(), status)
}

#[test]
fn a_pod_runs_ends_and_leaves_nothing_in_containerd() {
    on_a_host(|mut host, client| async move {
        let words =
            "echo out; echo err >&2; echo \"$FROM $WORD $1\"; echo word > /dev/termination-log; exit 3";
        let mut ends = script(words);
        ends["args"] = json!(["zero", "$(WORD)"]);
        ends["env"] = json!([{"name": "WORD", "value": "from-the-pod"}]);
        pod(&host, "ends", ends, json!({}));
        let over = host.until("ends", "failed", |pod| pod["status"]["phase"] == "Failed").await;
        let ended = &main_status(&over)["state"]["terminated"];
        assert_eq!((&ended["exitCode"], &ended["message"]), (&json!(3), &json!("word\n")), "{ended}");
        let mut lines: Vec<String> = host.log("ends", 0).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(lines, ["err", "image from-the-pod from-the-pod", "out"]);

        // Its address is the pod's own, and its rights are what it asks for.
        let serve = "id -u > /tmp/id; hostname > /tmp/index.html; grep CapEff /proc/self/status >> /tmp/index.html; \
                     exec httpd -f -p 80 -h /tmp";
        let mut server = script(serve);
        server["securityContext"] = json!({"runAsUser": 33, "capabilities": {"drop": ["ALL"]},
            "allowPrivilegeEscalation": false, "seccompProfile": {"type": "RuntimeDefault"}});
        server["readinessProbe"] =
            json!({"exec": {"command": ["test", "-s", "/tmp/index.html"]}, "periodSeconds": 1});
        server["resources"] = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        let uid = pod(&host, "web", server, json!({}));
        let ready = host.until("web", "ready", is_ready).await;
        let address = ready["status"]["podIP"].as_str().unwrap().to_owned();
        let said = get(&address).unwrap();
        assert!(said.starts_with("web\n") && said.ends_with("0000000000000000"), "{said}");

        let (printed, status) = exec(&host, "web", &["sh", "-c", "cat;id+-u;exit+7"], "piped ").await;
        assert_eq!(printed, "piped 33\n", "{status}");
        assert_eq!(status["details"]["causes"][0]["message"], "7", "{status}");

        // The next agent finds all of it, and counts no restart.
        host.agent.take().unwrap().leave().await;
        host.switch_on();
        let again = host.until("web", "ready", is_ready).await;
        assert_eq!(main_status(&again)["restartCount"], 0);
        assert_eq!(get(&address).as_deref(), Some(&*said));

        // One that fails its probe is begun anew in its sandbox.
        let mut sick = script("echo life; touch /tmp/well; exec sleep 1000");
        sick["livenessProbe"] =
            json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1});
        pod(&host, "sick", sick, json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 1}));
        host.until("sick", "restarted", |pod| main_status(pod)["restartCount"].as_u64() >= Some(1)).await;

        for name in ["web", "sick", "ends"] {
            host.delete(name, 1);
            host.until_gone(name).await;
        }
        assert!(!host.pod_folder(&uid).exists());
        assert!(get(&address).is_none(), "nothing answers there any more");
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        assert_eq!(client.containers(Default::default()).await.unwrap(), []);
        host.shut_down().await;
    });
}

#[test]
fn what_containerd_cannot_is_refused_with_the_reason() {
    on_a_host(|mut host, client| async move {
        pod(&host, "users", script("true"), json!({"hostUsers": false}));
        host.until_event("FailedCreatePodSandBox", |why| why.contains("hostUsers")).await;
        pod(
            &host,
            "lost",
            json!({"image": "docker.io/library/none:v1", "imagePullPolicy": "Never"}),
            json!({}),
        );
        let waits = |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "ErrImageNeverPull";
        host.until("lost", "waiting for its image", waits).await;
        pod(&host, "wrong", json!({"command": ["/bin/no-such-program"]}), json!({}));
        host.until_event("Failed", |why| why.contains("no-such-program")).await;
        for name in ["users", "lost", "wrong"] {
            host.delete(name, 0);
            host.until_gone(name).await;
        }
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        host.shut_down().await;
    });
}

#[test]
fn volumes_in_memory_and_parts_of_volumes_are_the_hosts_and_end_with_the_pod() {
    on_a_host(|mut host, client| async move {
        let volumes = json!([{"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            {"name": "data", "emptyDir": {}}]);
        let mount =
            |name: &str, path: &str, part: &str| json!({"name": name, "mountPath": path, "subPath": part});
        let text = "grep -c '^tmpfs /mem tmpfs' /proc/mounts; dd if=/dev/zero of=/mem/x bs=64k count=32 2> /dev/null || echo full; \
                    rm /mem/x; echo part > /part/file; cat /data/a/b/file; cat /one; ln -s /etc /data/out";
        let init = json!([{"name": "first", "image": BOX, "command": ["sh", "-c", "echo one > /data/one"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]);
        let mounts = json!([{"name": "mem", "mountPath": "/mem"}, {"name": "data", "mountPath": "/data"},
            mount("data", "/part", "a/b"), mount("data", "/one", "one")]);
        let spec = json!({"volumes": volumes, "initContainers": init});
        let printed = host.script("shows", text, json!({"image": BOX, "volumeMounts": mounts}), spec).await;
        assert_eq!(printed, "1\nfull\npart\none\n");

        // What the pod has made of its volume leads nowhere else, and what was there before goes on.
        let mut lasts = script("while :; do sleep 1000; done");
        lasts["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
        let escapes = json!({"name": "escapes", "image": BOX, "command": ["true"],
            "volumeMounts": [mount("data", "/etc/of-the-host", "out")]});
        let init = json!([{"name": "first", "image": BOX, "command": ["ln", "-s", "/etc", "/data/out"],
            "volumeMounts": [{"name": "data", "mountPath": "/data"}]}, escapes]);
        let data = json!([{"name": "data", "emptyDir": {}}]);
        pod(&host, "escapes", lasts, json!({"initContainers": init, "volumes": data}));
        host.until_event("Failed", |why| why.contains("leads out of the volume")).await;

        for name in ["shows", "escapes"] {
            host.delete(name, 0);
            host.until_gone(name).await;
        }
        let pods = host.folder.path().join("agent/pods");
        let table = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(!table.contains(pods.to_str().unwrap()), "{table}");
        assert_eq!(fs::read_dir(&pods).unwrap().count(), 0);
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        host.shut_down().await;
    });
}

#[test]
fn a_pod_with_limits_as_a_whole_is_held_to_them_in_containerd() {
    on_a_host(|mut host, client| async move {
        let Some(top) = Top::make("foreign") else { return };
        host.agent.take().unwrap().leave().await;
        host.cgroups = top.0.clone();
        host.switch_on();
        let lasts = script("while :; do sleep 1000; done");
        let limits = json!({"limits": {"cpu": "500m", "memory": "64Mi"}});
        let uid = pod(&host, "whole", lasts, json!({"resources": limits}));
        host.until("whole", "running", |pod| pod["status"]["phase"] == "Running").await;
        match top.limits(&uid, "") {
            (Some(cpu), Some(memory)) => assert_eq!((&*cpu, &*memory), ("50000", "67108864")),
            _ => testing::skip("cgroups", "this machine has no controllers for limits"),
        }
        // Its sandbox's and its container's own are in it, wherever the runtime has cgroups.
        let beneath = |top: &PathBuf| {
            let hosts = fs::read_dir(top.join("holdfast")).into_iter().flatten().flatten();
            let pods = hosts.map(|host| host.path().join(format!("pod-{uid}")));
            let all = pods.filter_map(|pod| fs::read_dir(pod).ok()).flatten().flatten();
            all.filter(|one| one.path().is_dir()).count()
        };
        assert!(top.0.iter().any(|top| beneath(top) == 2));
        host.delete("whole", 0);
        host.until_gone("whole").await;
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        host.shut_down().await;
        assert!(top.is_empty());
        // The runtime makes folders in all hierarchies.
        let name = top.0[0].file_name().unwrap();
        for hierarchy in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
            let left = hierarchy.path().join(name);
            assert!(!left.exists() || top.0.contains(&left), "{}", left.display());
        }
    });
}
