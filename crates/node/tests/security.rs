//! What a pod may see, change and keep of its host.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use serde_json::{Value, json};
use support::{TestHost, can_mount, is_alive, is_ready, is_root, main_status};

/// Why the container is not started.
fn refusal(pod: &Value) -> Option<String> {
    let waiting = &main_status(pod)["state"]["waiting"];
    (waiting["reason"] == "CreateContainerConfigError")
        .then(|| waiting["message"].as_str().unwrap().to_owned())
}

/// What a container reports of itself, line by line.
async fn report(host: &TestHost, uid: &str) -> Vec<String> {
    let text = host.until_file(&host.work(uid).join("report"), |text| text.ends_with("done\n")).await;
    text.lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symbolic_link_in_a_volume_leads_no_mount_out_of_it() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    let outside = host.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "hunter2").unwrap();
    let link = format!(
        "ln -s {} /holdfast-v/a; mkdir -p /holdfast-v/b/c; ln -s b /holdfast-v/in",
        outside.display()
    );
    for (name, mounts, why) in [
        (
            "whole",
            json!([{"name": "v", "mountPath": "/holdfast-w", "subPath": "a"}]),
            Some("leads out of the volume"),
        ),
        (
            "file",
            json!([{"name": "v", "mountPath": "/holdfast-w", "subPath": "a/secret"}]),
            Some("leads out"),
        ),
        ("new", json!([{"name": "v", "mountPath": "/holdfast-w", "subPath": "a/new"}]), Some("leads out")),
        (
            "expression",
            json!([{"name": "v", "mountPath": "/holdfast-w", "subPathExpr": "$(A)"}]),
            Some("leads out"),
        ),
        (
            "nested",
            json!([{"name": "v", "mountPath": "/holdfast-v"}, {"name": "w", "mountPath": "/holdfast-v/a/new"}]),
            Some("leads out of the volume"),
        ),
        ("within", json!([{"name": "v", "mountPath": "/holdfast-w", "subPath": "in/c"}]), None),
    ] {
        let init = json!({"name": "i", "command": ["sh", "-c", link],
            "volumeMounts": [{"name": "v", "mountPath": "/holdfast-v"}]});
        let spec = json!({"initContainers": [init],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "emptyDir": {}}]});
        let container = json!({"command": ["sleep", "1000"], "volumeMounts": mounts,
            "env": [{"name": "A", "value": "a"}]});
        host.pod(name, container, spec);
        let pod = host.until(name, "decided", |pod| refusal(pod).is_some() || is_ready(pod)).await;
        match (why, refusal(&pod)) {
            (Some(why), Some(message)) => {
                assert!(message.contains(why) && message.contains("volume"), "{name}: {message}");
            }
            (None, None) => {}
            (_, other) => panic!("{name}: {other:?}"),
        }
        host.delete(name, 0);
        host.until_gone(name).await;
    }
    let left: Vec<_> = std::fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["secret"], "nothing was made outside");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_working_folder_is_entered_with_the_pods_own_rights() {
    if !is_root() {
        testing::skip("root", "only root runs pods as other users");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let mut host = TestHost::start();
    let closed = host.folder.path().join("closed");
    std::fs::create_dir_all(closed.join("open")).unwrap();
    std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
    let container = json!({"command": ["sleep", "1000"], "workingDir": closed.join("open"),
        "securityContext": {"runAsUser": 2345, "runAsGroup": 2345}});
    host.pod("a", container, json!({"restartPolicy": "Never"}));
    let pod = host.until("a", "failed", |pod| pod["status"]["phase"] == "Failed").await;
    let message = main_status(&pod)["state"]["terminated"]["message"].as_str().unwrap();
    assert!(message.starts_with("change to the working directory: Permission denied"), "{message}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_those_that_the_security_context_names() {
    if !is_root() {
        testing::skip("root", "only root has rights to drop");
        return;
    }
    let mut host = TestHost::start();
    let command = "{ grep -E '^(Uid|Gid|Groups|CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status | \
                   tr -s '\\t ' '  '; echo done; } > report; exec sleep 1000";
    let bind = "0000000000000400";
    let none = "0000000000000000";
    for (name, own, spec, expected) in [
        (
            "dropped",
            json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
            json!({}),
            vec![
                format!("CapEff: {bind}"),
                format!("CapPrm: {bind}"),
                format!("CapBnd: {bind}"),
                format!("CapInh: {none}"),
                format!("CapAmb: {none}"),
                "NoNewPrivs: 1".into(),
                "Uid: 0 0 0 0".into(),
            ],
        ),
        (
            "other",
            json!({"runAsUser": 2345, "capabilities": {"drop": ["ALL"]}}),
            json!({"supplementalGroups": [71], "fsGroup": 72, "runAsGroup": 70}),
            vec![
                format!("CapEff: {none}"),
                format!("CapBnd: {none}"),
                "NoNewPrivs: 0".into(),
                "Uid: 2345 2345 2345 2345".into(),
                "Gid: 70 70 70 70".into(),
                "Groups: 70 71 72 ".into(),
            ],
        ),
        (
            "unknown",
            json!({"runAsUser": 2345}),
            json!({}),
            vec!["Gid: 0 0 0 0".into(), "Groups: 0 ".into(), format!("CapEff: {none}")],
        ),
    ] {
        let container = json!({"command": ["sh", "-c", command], "securityContext": own});
        let uid = host.pod(name, container, json!({"securityContext": spec}));
        let lines = report(&host, &uid).await;
        for line in expected {
            assert!(lines.contains(&line), "{name}: {line}: {lines:#?}");
        }
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_leaves_only_the_volumes_to_write_to() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    let probe = host.folder.path().join("probe");
    let command = format!(
        "{{ for place in /holdfast-x /etc/holdfast-x /tmp/holdfast-x {0} $HOME/x /holdfast-ro/x /holdfast-data/x; do \
         touch $place 2> /dev/null && echo wrote $place; done; cat /dev/null && echo null; \
         echo done; }} > /holdfast-data/report; exec sleep 1000",
        probe.display()
    );
    let data = host.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let container = json!({"command": ["sh", "-c", command],
        "securityContext": {"readOnlyRootFilesystem": true},
        "volumeMounts": [{"name": "d", "mountPath": "/holdfast-data"},
            {"name": "r", "mountPath": "/holdfast-ro", "readOnly": true}]});
    let spec = json!({"volumes": [{"name": "d", "hostPath": {"path": data}}, {"name": "r", "emptyDir": {}}]});
    host.pod("a", container, spec);
    host.until("a", "ready", is_ready).await;
    let text = host.until_file(&data.join("report"), |text| text.ends_with("done\n")).await;
    assert_eq!(text, "wrote /holdfast-data/x\nnull\ndone\n");
    assert!(!probe.exists());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_enforced_is_refused() {
    let mut host = TestHost::start();
    for (name, own, spec, why) in [
        (
            "seccomp",
            json!({"seccompProfile": {"type": "RuntimeDefault"}}),
            json!({}),
            "seccompProfile RuntimeDefault",
        ),
        ("users", json!({}), json!({"hostUsers": false}), "hostUsers"),
        ("label", json!({"seLinuxOptions": {"level": "s0"}}), json!({}), "seLinuxOptions"),
        ("flying", json!({"capabilities": {"add": ["FLY"]}}), json!({}), "unknown capability"),
        ("devices", json!({}), json!({"volumes": []}), "volumeDevices"),
    ] {
        let mut container = json!({"command": ["sleep", "1000"], "securityContext": own});
        if name == "devices" {
            container["volumeDevices"] = json!([{"name": "d", "devicePath": "/dev/x"}]);
        }
        host.pod(name, container, spec);
        let pod = host.until(name, "refused", |pod| refusal(pod).is_some()).await;
        let message = refusal(&pod).unwrap();
        assert!(message.contains(why), "{name}: {message}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_over_the_folder_that_all_pods_lie_in_hides_none_of_the_pods_own() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    // The test's folder, with everything of the agent's, lies below it.
    let above = host.folder.path().canonicalize().unwrap().parent().unwrap().to_owned();
    let command = format!(
        "cd {0}; touch mine; {{ echo *; cat $HOLDFAST_VOLUME_SECOND/x; touch $TMPDIR/x && echo tmp; \
         cat /etc/hosts > /dev/null && echo hosts; echo done; }} > $HOME/report; exec sleep 1000",
        above.display()
    );
    let container = json!({"command": ["sh", "-c", command], "volumeMounts": [
        {"name": "first", "mountPath": above}, {"name": "second", "mountPath": "/holdfast-second"}]});
    let init = json!({"name": "i", "command": ["sh", "-c", "echo two > /holdfast-second/x"],
        "volumeMounts": [{"name": "second", "mountPath": "/holdfast-second"}]});
    let spec = json!({"initContainers": [init],
        "volumes": [{"name": "first", "emptyDir": {}}, {"name": "second", "emptyDir": {}}]});
    let uid = host.pod("a", container, spec);
    let lines = report(&host, &uid).await;
    assert!(lines[0].split(' ').any(|name| name == "mine"), "{lines:?}");
    assert!(lines[0].split(' ').count() <= 2, "nothing of the host's: {lines:?}");
    assert_eq!(lines[1..], ["two", "tmp", "hosts", "done"]);
    assert!(!above.join("mine").exists());
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_fails_names_its_volume_and_its_path() {
    if !can_mount() {
        return;
    }
    let mut host = TestHost::start();
    let container = json!({"command": ["sleep", "1000"], "volumeMounts": [
        {"name": "settings", "mountPath": "/holdfast-x", "subPath": "nope"}]});
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1",
        "metadata": {"name": "settings", "namespace": "default"}, "data": {"a": "b"}});
    host.writer.put(&map);
    host.pod("a", container, json!({"volumes": [{"name": "settings", "configMap": {"name": "settings"}}]}));
    let pod = host.until("a", "refused", |pod| refusal(pod).is_some()).await;
    let message = refusal(&pod).unwrap();
    for part in ["\"settings\"", "/holdfast-x", "\"nope\""] {
        assert!(message.contains(part), "{part}: {message}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_shell_that_started_the_agent_reaches_a_pod() {
    // As a shell's `exec 9<file` leaves it: open across exec.
    let file = std::fs::File::open("/etc/passwd").unwrap();
    // SAFETY: `dup` answers a descriptor that nobody else has.
    let inherited = unsafe { OwnedFd::from_raw_fd(libc::dup(file.as_raw_fd())) };
    let mut host = TestHost::start();
    // As a shell leaves it that starts the agent in its background.
    // SAFETY: a call on numbers.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_IGN) };
    let command = "{ ls -l /proc/self/fd | grep -c /etc/passwd; echo $PATH; grep SigIgn /proc/self/status; echo done; } > report; exec sleep 1000";
    let uid = host.pod("a", json!({"command": ["sh", "-c", command]}), json!({}));
    let lines = report(&host, &uid).await;
    let programs = host.folder.path().join("programs");
    let path = format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", programs.display());
    assert_eq!(lines, ["0", &path, "SigIgn:\t0000000000000000", "done"]);
    drop(inherited);
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_former_agent_left_ends_before_the_next_one_begins() {
    let mut host = TestHost::start();
    // It left its container's session, and its variables too.
    let escape = "setsid env -i sh -c 'echo $$$$ > pid; exec sleep 1000' & exec sleep 1000";
    let known = "setsid sh -c 'echo $$$$ > pid2; exec sleep 1000' & exec sleep 1000";
    let uid = host.pod("a", json!({"command": ["sh", "-c", escape]}), json!({}));
    let other = host.pod("b", json!({"command": ["sh", "-c", known]}), json!({}));
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).unwrap_or_default();
    host.until_file(&host.work(&uid).join("pid"), |text| text.ends_with('\n')).await;
    host.until_file(&host.work(&other).join("pid2"), |text| text.ends_with('\n')).await;
    let left = [read(host.work(&uid).join("pid")), read(host.work(&other).join("pid2"))];
    // As killed, and their shims too: nobody ends what has left its container.
    drop(host.agent.take());
    host.kill_shims();
    let data = host.folder.path().join("agent");
    node::end_former_pods(&data, &[], None).await;
    assert!(!is_alive(&left[1]), "found by its variables");
    if can_mount() {
        assert!(!is_alive(&left[0]), "found by its mounts");
    } else if is_alive(&left[0]) {
        let _ = std::process::Command::new("kill").args(["-9", left[0].trim()]).status();
    }
    node::end_former_pods(Path::new("/nonexistent/holdfast"), &[], None).await;
}
