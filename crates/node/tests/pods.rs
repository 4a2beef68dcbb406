//! Real processes under a real agent, on a store in memory.

mod support;

use std::time::Duration;

use serde_json::json;
use store::Store;
use support::{PATIENCE, TestHost, condition, is_alive, is_ready, main_status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_registers_and_runs_a_pod() {
    let mut host = TestHost::start();
    let uid = host.pod(
        "a",
        json!({"command": ["sh", "-c", "echo $$$$ $(NAME) > pid; exec sleep 1000"],
        "env": [{"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]}),
        json!({}),
    );
    let pod = host.until("a", "ready", is_ready).await;
    let status = &pod["status"];
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["podIP"], format!("127.{}.1.1", host.net));
    assert_eq!(status["hostIP"], "127.0.0.1");
    assert_eq!(status["observedGeneration"], 1);
    assert_eq!(status["qosClass"], "BestEffort", "what others wrote stays");
    let main = main_status(&pod);
    assert_eq!(main["restartCount"], 0);
    assert_eq!(main["containerID"], format!("host://{uid}/main/0"));
    assert_eq!((&main["ready"], &main["started"]), (&json!(true), &json!(true)));
    assert!(main["state"]["running"]["startedAt"].is_string());
    for kind in ["PodScheduled", "Initialized", "ContainersReady", "PodReadyToStartContainers"] {
        assert_eq!(condition(&pod, kind).unwrap()["status"], "True", "{kind}");
    }
    let text = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    let (pid, name) = text.trim().split_once(' ').unwrap();
    assert_eq!(name, "a");
    assert!(is_alive(pid));

    let node = host.writer.get("nodes", "", "n1").unwrap();
    assert_eq!(condition(&node, "Ready").unwrap()["status"], "True");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["status"]["capacity"]["pods"], "250");

    host.shut_down().await;
    assert!(!is_alive(pid), "nothing outlives the agent");
    assert!(host.writer.get("pods", "default", "a").is_some(), "the object stays");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_restarts_at_once_and_then_waits() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sh", "-c", "exit 3"]}), json!({}));
    let crashed = |pod: &serde_json::Value| {
        let main = main_status(pod);
        main["restartCount"] == 1 && main["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    };
    let pod = host.until("a", "crash loop", crashed).await;
    let last = &main_status(&pod)["lastState"]["terminated"];
    assert_eq!((&last["exitCode"], &last["reason"]), (&json!(3), &json!("Error")));
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "back-off 10s restarting failed container=main pod=a_default(uid-of-a)");
    assert_eq!(condition(&pod, "Ready").unwrap()["reason"], "ContainersNotReady");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn init_containers_run_in_order_and_a_job_succeeds() {
    let mut host = TestHost::start();
    let init = |name: &str, command: &str| json!({"name": name, "command": ["sh", "-c", command]});
    let spec = json!({
        "restartPolicy": "Never",
        "initContainers": [init("one", "echo 1 >> order"), init("two", "echo 2 >> order")],
    });
    host.pod("a", json!({"command": ["sh", "-c", "echo 3 >> order; cat order; kill -0 $$$$"]}), spec);
    let pod = host.until("a", "done", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(host.log("a", 0), "1\n2\n3\n");
    assert_eq!(main_status(&pod)["state"]["terminated"]["reason"], "Completed");
    assert_eq!(condition(&pod, "Ready").unwrap()["reason"], "PodCompleted");
    let init = pod["status"]["initContainerStatuses"].as_array().unwrap();
    assert!(init.iter().all(|c| c["state"]["terminated"]["exitCode"] == 0 && c["ready"] == true), "{init:?}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_ready_once_its_server_answers() {
    let mut host = TestHost::start();
    let address = format!("127.{}.1.1", host.net);
    let listener = tokio::net::TcpListener::bind((address.as_str(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let container = json!({
        "command": ["sleep", "1000"],
        "ports": [{"name": "web", "containerPort": port}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "web"}, "periodSeconds": 1,
            "failureThreshold": 1},
    });
    host.pod("a", container, json!({}));
    let pod = host.until("a", "running", |pod| pod["status"]["phase"] == "Running").await;
    assert!(!is_ready(&pod), "nothing listens yet");

    let listener = tokio::net::TcpListener::bind((address.as_str(), port)).await.unwrap();
    let serve = |answer: &'static str, listener: tokio::net::TcpListener| {
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        })
    };
    let good = serve("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", listener);
    host.until("a", "ready", is_ready).await;
    good.abort();
    let _ = good.await;
    let pod = host.until("a", "not ready any more", |pod| !is_ready(pod)).await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sick_container_is_killed_and_started_again() {
    let mut host = TestHost::start();
    let container = json!({
        "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
        "livenessProbe": {"exec": {"command": ["sh", "-c", "test -e well"]}, "periodSeconds": 1,
            "failureThreshold": 1, "terminationGracePeriodSeconds": 1},
    });
    host.pod("a", container, json!({}));
    let pod = host.until("a", "restarted", |pod| main_status(pod)["restartCount"] == 1).await;
    let last = &main_status(&pod)["lastState"]["terminated"];
    assert_eq!(last["exitCode"], 137, "it ignores SIGTERM: {last}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_pod_ends_in_order() {
    let mut host = TestHost::start();
    let kind = "trap 'echo term >> end; exit 0' TERM; echo $$$$ > pid; while :; do sleep 0.05; done";
    let rude = "trap '' TERM; echo $$$$ > pid; while :; do sleep 0.05; done";
    let hook = json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> end; cat pid >> hooked"]}}});
    let end = host.folder.path().join("end");
    let share = json!({"volumes": [{"name": "out", "hostPath": {"path": host.folder.path()}}]});
    let kind = kind.replace("end", end.to_str().unwrap());
    let mut hook = hook;
    hook["preStop"]["exec"]["command"][2] = format!("echo hook >> {}", end.display()).into();
    let kind = host.pod("kind", json!({"command": ["sh", "-c", kind], "lifecycle": hook}), share);
    let rude = host.pod("rude", json!({"command": ["sh", "-c", rude]}), json!({}));
    let ended = |text: &str| text.ends_with('\n');
    let kind_pid = host.until_file(&host.work(&kind).join("pid"), ended).await;
    let rude_pid = host.until_file(&host.work(&rude).join("pid"), ended).await;
    for name in ["kind", "rude"] {
        host.until(name, "running", is_ready).await;
    }
    assert_eq!(host.addresses.0.lock().unwrap().len(), 2);

    host.delete("kind", 30);
    host.until_gone("kind").await;
    assert!(!is_alive(&kind_pid));
    assert_eq!(std::fs::read_to_string(&end).unwrap(), "hook\nterm\n");
    assert!(!host.work(&kind).exists(), "its folder is gone");

    host.delete("rude", 1);
    host.until_gone("rude").await;
    assert!(!is_alive(&rude_pid));
    assert_eq!(*host.addresses.0.lock().unwrap(), Vec::<std::net::IpAddr>::new());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_without_its_object_is_killed() {
    let mut host = TestHost::start();
    let uid = host.pod(
        "a",
        json!({"command": ["sh", "-c", "trap '' TERM; echo $$$$ > pid; sleep 1000"]}),
        json!({}),
    );
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    let key = store::KeyRange::key(objects::key("", "pods", "default", "a"));
    let delete = store::Txn { success: vec![store::Op::Delete(key)], ..store::Txn::default() };
    store::Store::txn(&*host.writer.store, delete).await.unwrap();
    let wait = async {
        while is_alive(&pid) || host.work(&uid).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap();
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_comes_back_starts_its_pods_again() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.pod("b", json!({"command": ["sleep", "1000"]}), json!({}));
    let before = host.until("a", "ready", is_ready).await;
    host.until("b", "ready", is_ready).await;
    host.shut_down().await;
    host.delete("b", 30);
    host.switch_on();
    host.until_gone("b").await;
    let again = |pod: &serde_json::Value| main_status(pod)["restartCount"] == 1 && is_ready(pod);
    let pod = host.until("a", "started again", again).await;
    assert_eq!(pod["status"]["podIP"], before["status"]["podIP"]);
    let last = &main_status(&pod)["lastState"]["terminated"];
    assert_eq!(last["reason"], "ContainerStatusUnknown", "{last}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_quorum_does_not_hold_pods_up() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "ready", is_ready).await;
    *host.writer.broken.lock().unwrap() = true;
    let uid = host.pod("b", json!({"command": ["sh", "-c", "echo $$$$ > pid; exec sleep 1000"]}), json!({}));
    host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    *host.writer.broken.lock().unwrap() = false;
    host.until("b", "told later", is_ready).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_this_host_can_not_run_says_why() {
    let mut host = TestHost::start();
    host.pod("a", json!({"image": "nginx"}), json!({"runtimeClassName": "kata"}));
    let pod = host.until("a", "refused", |pod| main_status(pod)["state"]["waiting"].is_object()).await;
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("RuntimeClass \"kata\" has no runtime on this host"), "{message}");

    host.pod("b", json!({"image": "nginx"}), json!({}));
    let waits = |pod: &serde_json::Value| {
        main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError"
    };
    let pod = host.until("b", "no command", waits).await;
    assert!(main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap().contains("no command"));

    host.pod("c", json!({"command": ["/nonexistent/program"]}), json!({"restartPolicy": "Never"}));
    let pod = host.until("c", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &main_status(&pod)["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("StartError"), &json!(128)));
    assert!(ended["message"].as_str().unwrap().contains("/nonexistent/program"), "{ended}");

    host.pod("d", json!({"command": ["sleep", "1000"]}), json!({"os": {"name": "windows"}}));
    let pod = host.until("d", "rejected", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "PodOSNotSupported");
    for name in ["a", "b"] {
        host.delete(name, 30);
        host.until_gone(name).await;
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_more_than_there_is_fails_until_there_is_room() {
    let mut host = TestHost::start();
    let takes = |cpu: String| json!({"command": ["sleep", "1000"], "resources": {"requests": {"cpu": cpu}}});
    host.pod("first", takes("1m".into()), json!({}));
    host.until("first", "ready", is_ready).await;
    let mut states = host.writer.store.states();
    let node = loop {
        states.borrow_and_update();
        match host.writer.get("nodes", "", "n1") {
            Some(node) if node["status"].is_object() => break node,
            _ => states.changed().await.unwrap(),
        }
    };
    let all = 1000 * node["status"]["allocatable"]["cpu"].as_str().unwrap().parse::<u64>().unwrap();
    host.pod("most", takes(format!("{}m", all - 101)), json!({}));
    host.until("most", "ready", is_ready).await;
    host.pod("late", takes("101m".into()), json!({}));
    let pod = host.until("late", "rejected", |pod| pod["status"]["phase"] == "Failed").await;
    let why = format!(
        "Node didn't have enough resource: cpu, requested: 101, used: {}, capacity: {all}",
        all - 100
    );
    assert_eq!(pod["status"]["reason"], "OutOfcpu");
    assert_eq!(pod["status"]["message"], format!("Pod was rejected: {why}"));
    host.until_event("OutOfcpu", |told| told == why).await;
    host.pod("system", takes("101m".into()), json!({"priority": 2_000_000_000}));
    host.until("system", "ready", is_ready).await;
    host.delete("most", 0);
    host.until_gone("most").await;
    host.pod("later", takes(format!("{}m", all - 200)), json!({}));
    host.until("later", "ready", is_ready).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_left_its_group_ends_with_its_pod() {
    let mut host = TestHost::start();
    let escape = "setsid sh -c 'echo $$$$ > pid; exec sleep 1000' & exec sleep 1000";
    let hook = json!({"postStart": {"exec": {"command": ["sh", "-c", "echo hooked > hook"]}}});
    let uid = host.pod("a", json!({"command": ["sh", "-c", escape], "lifecycle": hook}), json!({}));
    let pid = host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    host.until_file(&host.work(&uid).join("hook"), |text| text == "hooked\n").await;
    host.delete("a", 5);
    host.until_gone("a").await;
    assert!(!is_alive(&pid));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_host_writes_nothing() {
    let mut host = TestHost::start();
    host.pod("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "ready", is_ready).await;
    let merges = || host.writer.merges.lock().unwrap().iter().filter(|name| *name == "a").count();
    let before = merges();
    assert!(before <= 3, "{before} writes for one pod");
    // Longer than the wait before a change is written again.
    host.pod("b", json!({"command": ["sleep", "1.5"]}), json!({"restartPolicy": "Never"}));
    host.until("b", "done", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(merges(), before);
    host.shut_down().await;
}
