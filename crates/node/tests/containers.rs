//! Containers with a root of their own: what they see, and how they live and end.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use serde_json::{Value, json};
use support::image::{ENDLESS, can_contain};
use support::{TestHost, is_ready, main_status};

/// The mounts of this process that lie in a folder.
fn mounted(beneath: &str) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(beneath)).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_sees_its_own_root_and_nothing_of_the_host() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "echo pid $$$$; hostname; cat /etc/hostname; id -u; pwd; echo $HOME; ls /; \
        for d in null zero full random urandom tty; do test -c /dev/$d || echo no $d; done; \
        echo x > /dev/null && head -c 4 /dev/zero | wc -c; \
        readlink /dev/fd; readlink /dev/ptmx; ls -d /dev/pts /dev/shm /dev/mqueue; \
        grep -c . /proc/1/cmdline; ls -d /proc/[0-9]* | wc -l; cat /proc/1/cgroup; grep $HOSTNAME /etc/hosts | wc -l; \
        true > /dev/stderr && echo done";
    let text = host.script("first", script, json!({}), json!({})).await;
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..4], ["pid 1", "first", "first", "0"], "{text}");
    assert_eq!(lines[4..6], ["/", "/root"], "{text}");
    assert!(!text.contains("no "), "{text}");
    let rest = text.split_once("\n4\n").unwrap().1;
    assert!(rest.starts_with("/proc/self/fd\npts/ptmx\n/dev/mqueue\n/dev/pts\n/dev/shm\n1\n"), "{text}");
    assert!(text.ends_with("1\ndone\n"), "{text}");
    let image = main_status(&host.writer.get("pods", "default", "first").unwrap()).clone();
    assert_eq!((&image["image"], &image["imageID"]), (&json!("box"), &json!("test/box@sha256:1")));
    let folder = host.folder.path().display().to_string();
    assert_eq!(mounted(&folder), Vec::<String>::new(), "nothing shows on the host");
    let in_use = || node::images_in_use(&host.folder.path().join("agent")).unwrap();
    let node = host.writer.get("nodes", "", "n1").unwrap();
    assert_eq!(node["status"]["images"], json!([{"names": ["test/box:v1"], "sizeBytes": 7}]));
    assert_eq!(node["status"]["runtimeHandlers"], json!([{"name": ""}, {"name": "host"}, {"name": "oci"}]));
    assert_eq!(in_use(), ["sha256:box".to_owned()].into(), "as long as the pod is there");
    host.delete("first", 0);
    host.until_gone("first").await;
    assert!(!host.folder.path().join("agent/pods/uid-of-first").exists() && in_use().is_empty());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_says_what_the_pod_does_not() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "id -u; id -g; id -G; pwd; echo $GREETING $PATH; echo \"$@\"";
    host.image(
        "web",
        &json!({"Env": ["GREETING=hello", "PATH=/bin"], "Entrypoint": ["sh", "-c", script, "me"], "Cmd": ["from", "image"],
            "User": "web", "WorkingDir": "/made/here"}),
    );
    let over = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    host.contained("image", json!({"image": "web"}), json!({}));
    host.contained(
        "pod",
        json!({"image": "web", "args": ["from", "$(POD)"], "workingDir": "/tmp",
        "env": [{"name": "POD", "value": "pod"}, {"name": "GREETING", "value": "bye"}],
        "securityContext": {"runAsUser": 5, "runAsGroup": 6}}),
        json!({"securityContext": {"supplementalGroups": [7]}}),
    );
    host.until("image", "over", over).await;
    host.until("pod", "over", over).await;
    assert_eq!(host.log("image", 0), "33\n34\n34 8\n/made/here\nhello /bin\nfrom image\n");
    assert_eq!(host.log("pod", 0), "5\n6\n6 7\n/tmp\nbye /bin\nfrom pod\n");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_beside_a_container_is_where_it_is() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let facts = "for n in pid mnt ipc uts cgroup; do readlink /proc/self/ns/$n; done; \
        grep -E '^(Uid|Gid|Groups|CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status; pwd; echo $X";
    let container = json!({"command": ["sh", "-c", format!("({facts}) > /tmp/mine; exec sleep 1000")],
        "env": [{"name": "X", "value": "y"}], "workingDir": "/srv",
        "securityContext": {"runAsUser": 33, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"}},
        "readinessProbe": {"exec": {"command": ["sh", "-c",
            format!("({facts}) > /tmp/theirs; cmp /tmp/mine /tmp/theirs && cat /tmp/theirs > /proc/1/fd/1")]}}});
    host.contained("a", container, json!({}));
    host.until("a", "ready", is_ready).await;
    let printed = host.log("a", 0);
    assert!(printed.contains("CapEff:\t0000000000000000") && printed.contains("NoNewPrivs:\t1"), "{printed}");
    assert!(printed.contains("Seccomp:\t2") && printed.contains("/srv\ny\n"), "{printed}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_life_begins_with_the_image_and_the_pods_volumes() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "test -e /tmp/x && echo old root; test -e /data/x && echo old volume; test -e /dev/shm/x && echo old memory; \
        touch /tmp/x /data/x /dev/shm/x; readlink /proc/self/ns/ipc; exit 3";
    let container =
        json!({"command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/data"}]});
    let spec = json!({"restartPolicy": "OnFailure", "volumes": [{"name": "v", "emptyDir": {}}]});
    host.contained("a", container, spec);
    let pod = host.until("a", "restarted", |pod| main_status(pod)["restartCount"] == 1).await;
    assert_eq!(main_status(&pod)["lastState"]["terminated"]["exitCode"], 3);
    let log = host.folder.path().join("agent/logs/default_a_uid-of-a/main/1.log");
    host.until_file(&log, |text| text.contains("ipc:")).await;
    let (first, second) = (host.log("a", 0), host.log("a", 1));
    assert_eq!(second, format!("old volume\nold memory\n{first}"));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_shared_as_the_pod_says() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let wait = "for i in $(seq 600); do ps | grep -q '[s]leep 4321' && break; sleep 0.1; done";
    let other = json!([{"name": "main", "image": "box", "command": ["sh", "-c", format!("{wait}; ps | grep -c '[s]leep 4321'; ps | grep -c '[p]ause'")]},
        {"name": "other", "image": "box", "command": ["sleep", "4321"]}]);
    let spec = |more: Value| {
        let mut spec = json!({"containers": other});
        support::merge(&mut spec, &more);
        spec
    };
    let over = |pod: &Value| {
        let list = pod["status"]["containerStatuses"].as_array();
        list.is_some_and(|list| {
            list.iter().any(|c| c["name"] == "main" && !c["state"]["terminated"].is_null())
        })
    };
    host.contained("shared", json!({}), spec(json!({"shareProcessNamespace": true})));
    host.until("shared", "over", over).await;
    assert_eq!(host.log("shared", 0), "1\n1\n");
    let text = host.script("host", "ps | grep -c '[s]leep 4321'", json!({}), json!({"hostPID": true})).await;
    assert_eq!(text, "1\n");
    host.shut_down().await;
}

/// How a container is that was added to look inside: the n-th of its pod.
fn added(pod: &Value, number: usize) -> &Value {
    &pod["status"]["ephemeralContainerStatuses"][number]["state"]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_to_look_inside_sees_the_processes_of_its_target() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let main = "echo mine > /tmp/of; until test -e /tmp/end; do sleep 0.1; done";
    let more = json!({"containers": [{"name": "main", "image": "box", "command": ["sh", "-c", main]},
        {"name": "other", "image": "box", "command": ["sleep", "1234"]},
        {"name": "over", "image": "box", "command": ["true"]}]});
    host.contained("a", json!({}), more);
    let runs = |pod: &Value| {
        let all = pod["status"]["containerStatuses"].as_array();
        let is = |at: usize, kind: &str| all.is_some_and(|all| all[at]["state"][kind].is_object());
        is(0, "running") && is(1, "running") && is(2, "terminated")
    };
    host.until("a", "running", runs).await;
    let add = |name: &str, target: &str, script: &str| {
        host.change("a", |pod| {
            let one = json!({"name": name, "image": "box", "imagePullPolicy": "IfNotPresent", "targetContainerName": target,
                "command": ["sh", "-c", script]});
            match pod["spec"]["ephemeralContainers"].as_array_mut() {
                Some(all) => all.push(one),
                None => pod["spec"]["ephemeralContainers"] = json!([one]),
            }
        });
    };
    // Its root is its own, and by /proc it comes to its target's.
    let look = "until test -e /proc/1/root/tmp/of; do sleep 0.1; done; head -c 2 /proc/1/cmdline; echo; ps | grep -c '[s]leep 1234'; \
        test -e /tmp/of || cat /proc/1/root/tmp/of; readlink /proc/self/ns/pid > /tmp/pid; \
        readlink /proc/1/ns/pid | cmp - /tmp/pid && echo same";
    add("look", "main", look);
    add("late", "over", "true");
    host.until("a", "looked", |pod| added(pod, 0)["terminated"].is_object()).await;
    let log = host.folder.path().join("agent/logs/default_a_uid-of-a/look/0.log");
    let printed = std::fs::read_to_string(log).unwrap();
    let said: Vec<&str> = printed.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    assert_eq!(said, ["sh", "0", "mine", "same"], "{printed}");
    let waits = |pod: &Value| added(pod, 1)["waiting"]["reason"] == "CreateContainerError";
    let pod = host.until("a", "refused", waits).await;
    let why = "invalid target container: container \"over\" is not running";
    assert_eq!(added(&pod, 1)["waiting"]["message"], why);
    // With the target all that is among its processes ends.
    add("last", "main", "touch /proc/1/root/tmp/end; exec sleep 1000");
    host.until("a", "ended with it", |pod| added(pod, 2)["terminated"]["exitCode"] == 137).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_outlive_the_agent() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    host.image("box", &json!({"StopSignal": "SIGUSR1"}));
    let script = "trap 'echo usr1; exit 7' USR1; echo up; while :; do sleep 0.1; done";
    host.contained("a", json!({"command": ["sh", "-c", script]}), json!({}));
    let running = |pod: &Value| !main_status(pod)["state"]["running"].is_null();
    let before = host.until("a", "running", running).await;
    let log = host.folder.path().join("agent/logs/default_a_uid-of-a/main/0.log");
    host.until_file(&log, |text| text.contains("up")).await;
    host.agent.take().unwrap().leave().await;
    host.switch_on();
    // Were it asked by SIGTERM, nothing would come of that.
    host.delete("a", 300);
    host.until_gone("a").await;
    assert_eq!(main_status(&before)["restartCount"], 0);
    host.until_event("Killing", |message| message.contains("Stopping container main")).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_started_says_why() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let waits = |pod: &Value, reason: &str| main_status(pod)["state"]["waiting"]["reason"] == reason;
    host.contained("missing", json!({"image": "nowhere", "command": ["true"]}), json!({}));
    host.contained("never", json!({"image": "nowhere", "imagePullPolicy": "Never"}), json!({}));
    host.contained("silent", json!({}), json!({}));
    host.contained("unknown", json!({"command": ["no-such-program"]}), json!({}));
    let sysctls = json!([{"name": "net.ipv4.tcp_syncookies", "value": "1"}]);
    host.contained("tuned", json!({"command": ["true"]}), json!({"securityContext": {"sysctls": sysctls}}));
    let why = "forbidden sysctl: \"net.ipv4.tcp_syncookies\" can't be set: pods have no networks of their own on this host";
    host.until_event("SysctlForbidden", |message| message.starts_with(why)).await;
    host.contained(
        "root",
        json!({"command": ["true"], "securityContext": {"runAsNonRoot": true}}),
        json!({}),
    );
    host.until("missing", "refused", |pod| waits(pod, "ErrImagePull")).await;
    host.until("missing", "waiting", |pod| waits(pod, "ImagePullBackOff")).await;
    host.contained("odd", json!({"image": "no name"}), json!({}));
    host.until("odd", "refused", |pod| waits(pod, "InvalidImageName")).await;
    host.until("never", "refused", |pod| waits(pod, "ErrImageNeverPull")).await;
    host.until("silent", "refused", |pod| waits(pod, "CreateContainerConfigError")).await;
    let pod = host.until("root", "refused", |pod| waits(pod, "CreateContainerConfigError")).await;
    let why = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        why.starts_with("container has runAsNonRoot and image will run as root (pod: \"root_default"),
        "{why}"
    );
    let pod = host.until("unknown", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let ended = &main_status(&pod)["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(128), &json!("StartError")));
    assert_eq!(ended["message"], "exec: \"no-such-program\": executable file not found in $PATH");
    host.until_event("BackOff", |message| message == "Back-off pulling image \"nowhere\"").await;
    host.until_event("Failed", |message| message == "Error: ImagePullBackOff").await;
    host.until_event("FreeDiskSpaceFailed", |message| message.starts_with("Failed to garbage collect")).await;
    let secrets = json!([{"name": "none"}]);
    host.contained(
        "poor",
        json!({"image": "nowhere", "command": ["true"]}),
        json!({"imagePullSecrets": secrets}),
    );
    let told =
        "Unable to retrieve some image pull secrets (none); attempting to pull the image may not succeed.";
    host.until_event("FailedToRetrieveImagePullSecret", |message| message == told).await;
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_deleted_does_not_wait_for_its_pull() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    host.contained("pulls", json!({"image": ENDLESS}), json!({}));
    host.until_event("Pulling", |why| why.contains(ENDLESS)).await;
    host.delete("pulls", 30);
    host.until_gone("pulls").await;
    assert!(!host.events().iter().any(|(reason, _)| reason == "Failed"), "nothing failed");
    host.shut_down().await;
}
