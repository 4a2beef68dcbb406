//! What a container may do, and the ways out of one that are tried from inside.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use support::image::can_contain;
use support::{TestHost, is_ready, main_status};

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_containerds_unless_others_are_asked_for() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let status = "grep -E '^(CapEff|CapBnd|CapPrm|CapInh|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' '  '";
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap().trim().to_owned();
    let (default, none) = ("00000000a80425fb", "0000000000000000");
    for (name, own, caps, bound, new, seccomp) in [
        ("default", json!({}), default, default, 0, 0),
        ("user", json!({"runAsUser": 33}), none, default, 0, 0),
        (
            "bare",
            json!({"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": false,
                "seccompProfile": {"type": "RuntimeDefault"}}),
            none,
            none,
            1,
            2,
        ),
        (
            "privileged",
            json!({"privileged": true, "seccompProfile": {"type": "RuntimeDefault"}}),
            &all,
            &all,
            0,
            0,
        ),
    ] {
        let text = host.script(name, status, json!({"securityContext": own}), json!({})).await;
        let expected = format!(
            "CapInh: {none}\nCapPrm: {caps}\nCapEff: {caps}\nCapBnd: {bound}\nCapAmb: {none}\nNoNewPrivs: {new}\nSeccomp: {seccomp}\n"
        );
        assert_eq!(text, expected, "{name}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_profile_of_app_armor_is_held_to_it_or_does_not_run() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let asks = |profile: Value| json!({"securityContext": {"appArmorProfile": profile}});
    let (default, none) = (json!({"type": "RuntimeDefault"}), json!({"type": "Unconfined"}));
    let mine = json!({"type": "Localhost", "localhostProfile": "holdfast-no-such-profile"});
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
    if enabled.starts_with('Y') && testing::has("apparmor_parser") {
        let look = "cat /proc/self/attr/current; mount -t tmpfs none /tmp 2> /dev/null || echo held";
        let text = host.script("default", look, asks(default), json!({})).await;
        assert_eq!(text, "holdfast-default (enforce)\nheld\n");
        let text = host.script("none", look, asks(none), json!({})).await;
        assert!(text.starts_with("unconfined\n"), "{text}");
        host.contained("mine", json!({"command": ["true"]}), asks(mine));
        let waits =
            |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
        let pod = host.until("mine", "refused", waits).await;
        let why = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
        assert!(why.starts_with("apparmor profile not found holdfast-no-such-profile"), "{why}");
    } else if !enabled.starts_with('Y') {
        assert_eq!(host.script("none", "echo runs", asks(none), json!({})).await, "runs\n");
        let why = "Cannot enforce AppArmor: AppArmor is not enabled on the host";
        for (name, profile) in [("default", default), ("mine", mine)] {
            host.contained(name, json!({"command": ["true"]}), asks(profile));
            let pod = host.until(name, "rejected", |pod| pod["status"]["phase"] == "Failed").await;
            assert_eq!(pod["status"]["reason"], "AppArmor");
            assert_eq!(pod["status"]["message"], format!("Pod was rejected: {why}"));
        }
        host.until_event("AppArmor", |message| message == why).await;
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_holds_back_what_leads_out() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let seccomp = host.folder.path().join("agent/seccomp");
    std::fs::create_dir_all(&seccomp).unwrap();
    std::fs::write(
        seccomp.join("no-mkdir.json"),
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}"#,
    )
    .unwrap();
    std::os::unix::fs::symlink("/etc/passwd", seccomp.join("link.json")).unwrap();
    let script =
        "unshare -U true 2> /dev/null && echo namespace; mkdir /tmp/d 2> /dev/null && echo folder; echo done";
    for (name, profile, printed) in [
        ("open", json!({"type": "Unconfined"}), "namespace\nfolder\ndone\n"),
        ("default", json!({"type": "RuntimeDefault"}), "folder\ndone\n"),
        ("local", json!({"type": "Localhost", "localhostProfile": "no-mkdir.json"}), "namespace\ndone\n"),
    ] {
        let own = json!({"securityContext": {"seccompProfile": profile}});
        assert_eq!(host.script(name, script, own, json!({})).await, printed, "{name}");
    }
    let profile = json!({"type": "Localhost", "localhostProfile": "link.json"});
    host.contained(
        "link",
        json!({"command": ["true"], "securityContext": {"seccompProfile": profile}}),
        json!({}),
    );
    let waits = |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = host.until("link", "refused", waits).await;
    let why = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(why.contains("link.json") && why.contains("leads out"), "{why}");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_device_and_no_file_of_the_kernels_leads_out() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    // The disk that the test's own folder lies on: readable by every root whom nothing holds back.
    let disk = std::fs::metadata(host.folder.path()).unwrap().dev();
    let (major, minor) = (nix_major(disk), nix_minor(disk));
    let script = format!(
        "for place in /tmp/disk /dev/disk /dev/shm/disk /v/disk; do mknod $place b {major} {minor} && \
         head -c 1 $place > /dev/null && echo read $place; done; \
         mknod /tmp/null c 1 3 && cat /tmp/null && echo null; \
         for file in /proc/sys/kernel/hostname /proc/sys/vm/drop_caches /proc/sysrq-trigger /proc/sys/kernel/core_pattern; do \
         echo x > $file && echo wrote $file; done; \
         for file in /proc/kcore /proc/keys /proc/timer_list; do head -c 1 $file | wc -c | grep -v '^0' && echo saw $file; done; \
         mount -t tmpfs none /tmp && echo mounted; umount /proc/sys && echo bared; mount -o remount,rw /sys && echo remounted; \
         chroot / true && echo chroot; ls /sys/firmware | wc -l; ls -l /proc/1/root | sed 's/.*-> //'; \
         mkdir /sys/fs/cgroup/x && echo cgroup; echo done"
    );
    let script = format!("({script}) 2> /dev/null");
    let mounts = json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let text = host.script("a", &script, mounts.clone(), spec.clone()).await;
    assert_eq!(text, "chroot\n0\n/\ndone\n");
    // Who may do anything may do that, too.
    let script =
        "mknod /tmp/null c 1 3 && cat /tmp/null && echo null; mount -t tmpfs none /tmp && echo mounted";
    let own = json!({"securityContext": {"privileged": true}});
    assert_eq!(host.script("privileged", script, own, json!({})).await, "null\nmounted\n");
    host.shut_down().await;
}

fn nix_major(device: u64) -> u64 {
    ((device >> 32) & 0xffff_f000) | ((device >> 8) & 0xfff)
}

fn nix_minor(device: u64) -> u64 {
    ((device >> 12) & 0xffff_ff00) | (device & 0xff)
}

#[tokio::test(flavor = "multi_thread")]
async fn set_uid_programs_give_what_the_pod_allows() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "/bin/busybox-root su -c 'id -u' 2> /dev/null < /dev/null; true";
    for (name, own, printed) in [
        ("free", json!({"runAsUser": 33}), "0\n"),
        ("held", json!({"runAsUser": 33, "allowPrivilegeEscalation": false}), ""),
    ] {
        let text = host.script(name, script, json!({"securityContext": own}), json!({})).await;
        assert_eq!(text, printed, "{name}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_program_can_t_be_changed_by_who_is_executed_as_it() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    host.contained("a", json!({"command": ["sleep", "1000"]}), json!({}));
    host.until("a", "running", |pod| !main_status(pod)["state"]["running"].is_null()).await;
    let program =
        |pid: &str| nix::sys::statvfs::statvfs(std::path::Path::new(&format!("/proc/{pid}/exe"))).unwrap();
    let is_fixed = |pid: &str| program(pid).flags().contains(nix::sys::statvfs::FsFlags::ST_RDONLY);
    assert!(!is_fixed("self"), "the test itself lies where one can write");
    assert!(is_fixed(&host.shims()[0].to_string()));
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_can_t_be_led_elsewhere() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    for (name, link) in [("proc", "proc"), ("sys", "sys")] {
        host.image_with(name, &json!({}), |root| {
            let _ = std::fs::remove_dir(root.join(link));
            std::os::unix::fs::symlink("/v/elsewhere", root.join(link)).unwrap();
        });
        let container =
            json!({"image": name, "command": ["true"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
        host.contained(name, container, json!({"volumes": [{"name": "v", "emptyDir": {}}]}));
        let pod = host.until(name, "refused", |pod| pod["status"]["phase"] == "Failed").await;
        let why = main_status(&pod)["state"]["terminated"]["message"].as_str().unwrap();
        assert!(why.contains("the image has a link there"), "{why}");
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_of_the_image_and_of_volumes_stay_within_the_root() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    let outside = host.folder.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "hunter2").unwrap();
    host.image_with("box", &json!({}), |root| {
        std::os::unix::fs::symlink(&outside, root.join("trap")).unwrap()
    });
    // Mount points and the working folder are made where the image's links lead within its own root.
    let container = json!({"workingDir": "/trap/work", "volumeMounts": [{"name": "v", "mountPath": "/trap/new"},
        {"name": "v", "mountPath": "/var/run/v"}]});
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    let script = "pwd; ls /trap; echo hi > /trap/new/file; cat /run/v/file; cat /trap/secret";
    let script = format!("({script}) 2> /dev/null; true");
    let text = host.script("image", &script, container, spec).await;
    assert_eq!(text, format!("{}/work\nnew\nwork\nhi\n", outside.display()));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1, "nothing was made outside");

    let link = format!("ln -s {} /v/a", outside.display());
    let init = json!({"name": "i", "image": "box", "command": ["sh", "-c", link],
        "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"initContainers": [init], "volumes": [{"name": "v", "emptyDir": {}}]});
    let container = json!({"command": ["cat", "/w/secret"],
        "volumeMounts": [{"name": "v", "mountPath": "/w", "subPath": "a"}]});
    host.contained("volume", container, spec);
    let waits = |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = host.until("volume", "refused", waits).await;
    let why = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(why.contains("leads out of the volume"), "{why}");
    // A folder beneath the host's that the pod names as its working folder, by a file that is open while it is made.
    let script = "pwd";
    for number in [3, 5, 7, 9] {
        let name = format!("fd{number}");
        host.contained(
            &name,
            json!({"command": ["sh", "-c", script], "workingDir": format!("/proc/self/fd/{number}")}),
            json!({}),
        );
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pod = host.until(&name, "over", over).await;
        assert_eq!(pod["status"]["phase"], "Failed", "{}", host.log(&name, 0));
    }
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_root_leaves_only_the_volumes_to_write_to() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "for f in /x /etc/x /tmp/x /ro/x /v/x /dev/shm/x; do touch $f 2> /dev/null && echo $f; done; \
        echo y > /dev/termination-log; (echo y > /etc/hostname) 2> /dev/null || echo name";
    let container = json!({"securityContext": {"readOnlyRootFilesystem": true}, "volumeMounts": [
        {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/ro", "readOnly": true}]});
    let text = host.script("a", script, container, json!({"volumes": [{"name": "v", "emptyDir": {}}]})).await;
    assert_eq!(text, "/v/x\n/dev/shm/x\nname\n");
    let pod = host.writer.get("pods", "default", "a").unwrap();
    assert_eq!(main_status(&pod)["state"]["terminated"]["message"], "y\n");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_of_a_pods_own_are_nobody_on_the_host() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "id -u; cat /proc/self/uid_map | tr -s ' ' ' '; touch /v/mine /tmp/mine; ls -ln /v/mine /tmp/mine | tr -s ' ' ' ' | cut -d' ' -f3; \
        ls -ln /bin/busybox | tr -s ' ' ' ' | cut -d' ' -f3; touch /v/up; while test -e /v/up; do sleep 0.1; done";
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "readinessProbe": {"exec": {"command": ["test", "-e", "/v/up"]}}});
    let spec = json!({"hostUsers": false, "volumes": [{"name": "v", "emptyDir": {}}]});
    let uid = host.contained("a", container, spec);
    let over = |pod: &Value| is_ready(pod) || pod["status"]["phase"] == "Failed";
    let pod = host.until("a", "ready", over).await;
    let refused = main_status(&pod)["state"]["terminated"]["message"].as_str().unwrap_or_default().to_owned();
    if refused.contains("idmapped") {
        return testing::skip("idmap", refused);
    }
    assert!(is_ready(&pod), "{:#}", pod["status"]);
    assert_eq!(host.log("a", 0), " 0 65536 65536\n".replace(" 0 6", "0\n 0 6") + "0\n0\n0\n");
    let volume = host.folder.path().join(format!("agent/pods/{uid}/volumes/v/mine"));
    assert_eq!(std::fs::metadata(volume).unwrap().uid(), 0, "volumes outlive the pod's users");
    let upper = host.folder.path().join(format!("agent/pods/{uid}/bundles/main/upper/tmp/mine"));
    assert_eq!(std::fs::metadata(upper).unwrap().uid(), 65_536);
    host.shut_down().await;
}
