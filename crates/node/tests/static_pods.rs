//! Pods that a host runs because of a file of its own, and the mirrors by which the API shows them.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use support::{PATIENCE, TestHost, is_alive, is_ready, main_status};

const HASH: &str = "kubernetes.io/config.hash";
const MIRROR: &str = "kubernetes.io/config.mirror";

/// A host with a folder of manifests, which is not started yet.
fn host() -> (TestHost, PathBuf) {
    let mut host = TestHost::off();
    let folder = host.folder.path().join("manifests");
    fs::create_dir(&folder).unwrap();
    host.manifests = Some(folder.clone());
    host.writer
        .put(&json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "uid": "uid-of-n1"}}));
    (host, folder)
}

/// A manifest of a pod that writes its process id into a file and runs for long.
fn manifest(pid: &std::path::Path, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  runtimeClassName: host\n  terminationGracePeriodSeconds: 1\n  \
         containers:\n  - name: main\n    command: [sh, -c, 'echo $$$$ > {}; echo began{more}; exec sleep 1000']\n",
        pid.display()
    )
}

fn annotation(pod: &Value, name: &str) -> String {
    pod["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned()
}

async fn until_dead(pid: &str) {
    let wait = async {
        while is_alive(pid) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{pid} lives"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_a_pod_and_the_api_shows_it() {
    let (mut host, folder) = host();
    let pids = host.folder.path().join("pid");
    fs::write(folder.join("web.yaml"), manifest(&pids, "")).unwrap();
    host.switch_on();
    let pod = host.until("web-n1", "ready", is_ready).await;
    let hash = annotation(&pod, HASH);
    assert_eq!(
        (annotation(&pod, MIRROR), annotation(&pod, "kubernetes.io/config.source")),
        (hash.clone(), "file".into())
    );
    let owner =
        json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-of-n1", "controller": true}]);
    assert_eq!(pod["metadata"]["ownerReferences"], owner);
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["spec"]["tolerations"], json!([{"operator": "Exists", "effect": "NoExecute"}]));
    assert!(main_status(&pod)["containerID"].as_str().unwrap().starts_with(&format!("host://{hash}/")));
    let first = host.until_file(&pids, |text| text.ends_with('\n')).await;

    // Whatever becomes of the picture, what it shows goes on.
    let was = pod["metadata"]["uid"].clone();
    host.delete("web-n1", 30);
    let pod =
        host.until("web-n1", "another mirror", |pod| pod["metadata"]["uid"] != was && is_ready(pod)).await;
    assert!(is_alive(&first));
    let was = pod["metadata"]["uid"].clone();
    host.writer.remove("pods", "default", "web-n1");
    let pod =
        host.until("web-n1", "another mirror", |pod| pod["metadata"]["uid"] != was && is_ready(pod)).await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    host.change("web-n1", |pod| pod["status"]["phase"] = "Failed".into());
    host.until("web-n1", "told how it is", |pod| pod["status"]["phase"] == "Running").await;
    assert!(is_alive(&first));

    // Changed, it is another pod, which begins once the former one is gone.
    fs::write(folder.join("web.yaml"), manifest(&pids, " again")).unwrap();
    let pod = host.until("web-n1", "changed", |pod| annotation(pod, HASH) != hash && is_ready(pod)).await;
    assert!(!is_alive(&first));
    let second = host.until_file(&pids, |text| text.ends_with('\n') && text != first).await;

    // A file that can't be read ends nothing, and an Event says so.
    fs::write(folder.join("web.yaml"), "kind: Pod\nmetadata: {name: web}\nspec: {contaners: []}\n").unwrap();
    let told = "web.yaml: unknown field \"spec.contaners\"";
    host.until_event("InvalidStaticPod", |message| message.contains(told) && message.contains("goes on"))
        .await;
    assert!(is_alive(&second));

    fs::remove_file(folder.join("web.yaml")).unwrap();
    host.until_gone("web-n1").await;
    until_dead(&second).await;
    host.until_put_away(&annotation(&pod, HASH)).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_starts_without_a_majority_and_goes_on_under_the_next_agent() {
    let (mut host, folder) = host();
    let pids = host.folder.path().join("pid");
    fs::write(folder.join("web.json"), serde_json::to_string(&values_of(&manifest(&pids, ""))).unwrap())
        .unwrap();
    let ordinary = host.pod("ordinary", json!({"command": ["sleep", "1000"]}), json!({}));
    *host.writer.broken.lock().unwrap() = true;
    host.away.send_replace(true);
    host.switch_on();
    let first = host.until_file(&pids, |text| text.ends_with('\n')).await;
    assert!(host.writer.get("pods", "default", "web-n1").is_none());

    // Changed, it is another pod, also now.
    fs::remove_file(&pids).unwrap();
    fs::write(
        folder.join("web.json"),
        serde_json::to_string(&values_of(&manifest(&pids, " again"))).unwrap(),
    )
    .unwrap();
    let second = host.until_file(&pids, |text| text.ends_with('\n')).await;
    assert!(!is_alive(&first) && is_alive(&second));
    assert!(!host.pod_folder(&ordinary).exists(), "another host may run it by now");
    host.agent.take().unwrap().leave().await;
    assert!(is_alive(&second));

    // A mirror of what was here before, and one of what never was.
    for (name, of) in [("web-n1", "before"), ("other-n1", "never")] {
        host.writer.put(&json!({"kind": "Pod", "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "uid": format!("mirror-of-{of}"), "annotations": {MIRROR: of}},
            "spec": {"nodeName": "n1", "containers": [{"name": "main"}]}, "status": {"phase": "Pending"}}));
    }
    *host.writer.broken.lock().unwrap() = false;
    host.away.send_replace(false);
    host.switch_on();
    host.until("ordinary", "ready", is_ready).await;
    let pod = host
        .until("web-n1", "ready", |pod| annotation(pod, MIRROR) == annotation(pod, HASH) && is_ready(pod))
        .await;
    assert_eq!(main_status(&pod)["restartCount"], 0);
    host.until_gone("other-n1").await;
    assert!(is_alive(&second));
    assert_eq!(fs::read_to_string(&pids).unwrap(), second);
    host.shut_down().await;
    assert!(!is_alive(&second));
}

/// A text in YAML as a value.
fn values_of(yaml: &str) -> Value {
    values::from_yaml(yaml.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_static_pod_that_is_done_stays_done_and_another_pod_of_its_name_is_left_alone() {
    let (mut host, folder) = host();
    let once = "kind: Pod\nmetadata: {name: once}\nspec:\n  runtimeClassName: host\n  restartPolicy: Never\n  containers:\n  \
                - {name: main, command: [sh, -c, exit 0]}\n";
    fs::write(folder.join("once.yaml"), once).unwrap();
    host.pod("named-n1", json!({"command": ["sleep", "1000"]}), json!({}));
    fs::write(folder.join("named.yaml"), once.replace("once", "named")).unwrap();
    fs::write(folder.join("twice.yaml"), once).unwrap();
    fs::write(folder.join("once.yaml~"), once).unwrap();
    host.switch_on();
    let pod = host.until("once-n1", "over", |pod| pod["status"]["phase"] == "Succeeded").await;
    host.until_put_away(&annotation(&pod, HASH)).await;
    host.until("named-n1", "ready", is_ready).await;
    host.until_event("FailedMirrorPod", |told| told.contains("another pod of this name is in the API")).await;
    host.until_event("InvalidStaticPod", |told| told.contains("is that of once.yaml already")).await;
    host.until_event("InvalidStaticPod", |told| told.contains("these are not: once.yaml~")).await;
    host.shut_down().await;
    host.switch_on();
    // The next agent has looked at it once it has made what was missing.
    host.writer.remove("pods", "default", "named-n1");
    let named = host.until("named-n1", "a mirror", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(annotation(&named, MIRROR).len(), 32);
    let pod = host.writer.get("pods", "default", "once-n1").unwrap();
    assert_eq!(
        (&pod["status"]["phase"], &main_status(&pod)["restartCount"]),
        (&json!("Succeeded"), &json!(0)),
        "{pod:#}"
    );
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_ends_because_the_next_agent_cannot_read_its_manifest() {
    let (mut host, folder) = host();
    let (pids, aside) = (host.folder.path().join("pid"), host.folder.path().join("aside"));
    let file = folder.join("web.yaml");
    fs::write(&file, manifest(&pids, "")).unwrap();
    host.switch_on();
    host.until("web-n1", "ready", is_ready).await;
    let first = host.until_file(&pids, |text| text.ends_with('\n')).await;

    host.agent.take().unwrap().leave().await;
    fs::write(&file, "kind: Pod\n").unwrap();
    host.pod("second", json!({"command": ["sleep", "1000"]}), json!({}));
    host.switch_on();
    host.until_event("InvalidStaticPod", |told| told.contains("goes on")).await;
    // Others start once all is ended that a former life left and nobody wants.
    host.until("second", "ready", is_ready).await;
    assert!(is_alive(&first));

    host.agent.take().unwrap().leave().await;
    fs::rename(&folder, &aside).unwrap();
    fs::write(&folder, "a folder that can't be listed").unwrap();
    host.pod("third", json!({"command": ["sleep", "1000"]}), json!({}));
    host.switch_on();
    host.until_event("InvalidStaticPod", |told| told.contains("can't be looked for")).await;
    host.until("third", "ready", is_ready).await;
    assert!(is_alive(&first));
    let pod = host.until("web-n1", "ready", is_ready).await;
    assert_eq!(main_status(&pod)["restartCount"], 0);

    // Changed while no agent was there: the former one ends first, majority or not.
    host.agent.take().unwrap().leave().await;
    fs::remove_file(&folder).unwrap();
    fs::rename(&aside, &folder).unwrap();
    fs::write(&file, manifest(&pids, " again")).unwrap();
    *host.writer.broken.lock().unwrap() = true;
    host.away.send_replace(true);
    host.switch_on();
    let second = host.until_file(&pids, |text| text.ends_with('\n') && text != first).await;
    assert!(!is_alive(&first) && is_alive(&second));

    // And gone.
    host.agent.take().unwrap().leave().await;
    fs::remove_file(&file).unwrap();
    host.switch_on();
    until_dead(&second).await;
    *host.writer.broken.lock().unwrap() = false;
    host.away.send_replace(false);
    host.until_gone("web-n1").await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mirror_says_of_its_pod_counts_for_nothing() {
    let (mut host, folder) = host();
    let (pids, lives) = (host.folder.path().join("pid"), host.folder.path().join("lives"));
    let never = manifest(&pids, "").replace("spec:\n", "spec:\n  restartPolicy: Never\n");
    fs::write(folder.join("web.yaml"), never).unwrap();
    let once = format!(
        "kind: Pod\nmetadata: {{name: once}}\nspec:\n  runtimeClassName: host\n  restartPolicy: Never\n  containers:\n  \
                - {{name: main, command: [sh, -c, 'echo x >> {}']}}\n",
        lives.display()
    );
    fs::write(folder.join("once.yaml"), once).unwrap();
    host.switch_on();
    host.until("web-n1", "ready", is_ready).await;
    host.until("once-n1", "over", |pod| pod["status"]["phase"] == "Succeeded").await;
    host.agent.take().unwrap().leave().await;

    // As if the machine had been off; one that ran then is said to be done, and one that was done isn't shown any more.
    host.kill_shims();
    host.change("web-n1", |pod| {
        pod["status"]["phase"] = "Succeeded".into();
        let told = &mut pod["status"]["containerStatuses"][0];
        told["restartCount"] = 7.into();
        let id = told["containerID"].take();
        told["state"] = json!({"terminated": {"exitCode": 0, "reason": "Completed", "containerID": id}});
    });
    host.writer.remove("pods", "default", "once-n1");
    host.switch_on();
    let pod = host.until("web-n1", "lost", |pod| pod["status"]["phase"] == "Failed").await;
    let told = main_status(&pod);
    assert_eq!(
        (&told["state"]["terminated"]["exitCode"], &told["restartCount"]),
        (&json!(137), &json!(0)),
        "{pod:#}"
    );
    host.until("once-n1", "over", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(fs::read_to_string(&lives).unwrap(), "x\n", "it was done");
    host.shut_down().await;
}
