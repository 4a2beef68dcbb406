//! Volumes of containers beyond folders of the host: memory, images, and what a container mounts for others.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use support::image::can_contain;
use support::{TestHost, is_ready, main_status};

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_memory_is_bounded_and_stays_as_long_as_its_pod() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let script = "test -e /m/old && cat /m/old && ls /part && until test -e /d/go; do sleep 0.05; done && exit 0; grep ' /m ' /proc/mounts; stat -c '%a %g' /m; \
        dd if=/dev/zero of=/m/large bs=1k count=2000 2> /dev/null; stat -c %s /m/large; rm /m/large; \
        echo still there > /m/old; touch /part/file; exit 1";
    let container = json!({"command": ["sh", "-c", script], "volumeMounts": [
        {"name": "v", "mountPath": "/m"}, {"name": "v", "mountPath": "/part", "subPath": "a/b"},
        {"name": "d", "mountPath": "/d"}]});
    let spec = json!({"restartPolicy": "OnFailure", "securityContext": {"fsGroup": 71},
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "d", "emptyDir": {}}]});
    let uid = host.contained("a", container, spec);
    let again = |pod: &Value| {
        let status = main_status(pod);
        status["restartCount"] == 1 && status["state"]["running"].is_object()
    };
    host.until("a", "in its second life", again).await;
    let volumes = host.folder.path().join(format!("agent/pods/{uid}/volumes"));
    assert_eq!(std::fs::read_dir(volumes.join("v")).unwrap().count(), 0, "nothing of it is on the disk");
    std::fs::write(volumes.join("d/go"), "").unwrap();
    let over = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    host.until("a", "over", over).await;
    let first = host.log("a", 0);
    let lines: Vec<&str> = first.lines().collect();
    assert!(lines[0].starts_with("tmpfs /m tmpfs rw,nodev") && lines[0].contains("size=1024k"), "{first}");
    assert_eq!(lines[1..], ["2777 71", "1048576"], "{first}");
    assert_eq!(host.log("a", 1), "still there\nfile\n");
    host.shut_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_a_volume_that_is_only_read() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    host.image_with("data", &json!({}), |root| {
        std::fs::create_dir_all(root.join("models/small")).unwrap();
        std::fs::write(root.join("models/small/weights"), "1 2 3\n").unwrap();
    });
    let script = "cat /image/models/small/weights /small/weights; touch /image/x 2> /dev/null; echo $?; \
        /image/bin/busybox true 2> /dev/null; echo $?; grep -o ' /image overlay ro,nosuid,nodev,noexec' /proc/mounts";
    let mount = json!([{"name": "i", "mountPath": "/image"}, {"name": "i", "mountPath": "/small", "subPath": "models/small"}]);
    let volume =
        |image: &str| json!([{"name": "i", "image": {"reference": image, "pullPolicy": "IfNotPresent"}}]);
    for users in [None, Some(false)] {
        let name = if users.is_some() { "mapped" } else { "plain" };
        let spec = json!({"volumes": volume("data"), "hostUsers": users});
        let text = host.script(name, script, json!({"volumeMounts": mount}), spec).await;
        assert_eq!(text, "1 2 3\n1 2 3\n1\n126\n /image overlay ro,nosuid,nodev,noexec\n", "{name}");
        let in_use = node::images_in_use(&host.folder.path().join("agent")).unwrap();
        assert_eq!(in_use, ["sha256:box".to_owned(), "sha256:data".into()].into());
        host.delete(name, 0);
        host.until_gone(name).await;
    }
    assert!(node::images_in_use(&host.folder.path().join("agent")).unwrap().is_empty());

    let container = json!({"command": ["true"], "volumeMounts": mount});
    host.contained("lacks", container.clone(), json!({"volumes": volume("nowhere")}));
    let waits = |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "ImagePullBackOff";
    let pod = host.until("lacks", "waits for its image", waits).await;
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("Back-off pulling image \"nowhere\": ErrImagePull: no registry"),
        "{message}"
    );

    host.pod("host", container, json!({"volumes": volume("data")}));
    let refused =
        |pod: &Value| main_status(pod)["state"]["waiting"]["reason"] == "CreateContainerConfigError";
    let pod = host.until("host", "refused", refused).await;
    let message = main_status(&pod)["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("runs no image"), "{message}");
    host.shut_down().await;
}

/// A file system of its own that shows in other mount namespaces; gone with this.
struct Shared(PathBuf);

impl Shared {
    fn mounted(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        mount(None::<&str>, at, None::<&str>, MsFlags::MS_SHARED, None::<&str>).unwrap();
        Shared(at.to_owned())
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        for folder in [self.0.join("v"), self.0.clone()] {
            let _ = umount2(&folder, MntFlags::MNT_DETACH);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_container_mounts_for_others_shows_on_the_host_and_in_other_pods() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::with_image();
    let shared = Shared::mounted(&host.folder.path().join("shared"));
    let volume = json!({"restartPolicy": "Never",
        "volumes": [{"name": "s", "hostPath": {"path": shared.0.display().to_string(), "type": "Directory"}}]});
    let at = |propagation: &str| json!([{"name": "s", "mountPath": "/s", "mountPropagation": propagation}]);
    let reads = "until test -e /s/v/data; do sleep 0.05; done; cat /s/v/data; touch /s/seen";
    host.contained(
        "reads",
        json!({"command": ["sh", "-c", reads], "volumeMounts": at("HostToContainer")}),
        volume.clone(),
    );
    host.until("reads", "ready", is_ready).await;
    let mounts = "mkdir /s/v && mount -t tmpfs mine /s/v && echo from a pod > /s/v/data; \
        until test -e /s/gone; do sleep 0.05; done; umount /s/v && ls /s/v";
    let own = json!({"command": ["sh", "-c", mounts], "volumeMounts": at("Bidirectional"),
        "securityContext": {"privileged": true}});
    host.contained("mounts", own, volume.clone());
    assert_eq!(
        host.until_file(&shared.0.join("v/data"), |text| text == "from a pod\n").await,
        "from a pod\n"
    );
    let over = |pod: &Value| pod["status"]["phase"] == "Succeeded";
    host.until("reads", "over", over).await;
    assert_eq!(host.log("reads", 0), "from a pod\n");
    std::fs::write(shared.0.join("gone"), "").unwrap();
    host.until("mounts", "over", over).await;
    assert_eq!(host.log("mounts", 0), "", "unmounted there, it is gone");
    assert!(!shared.0.join("v/data").exists(), "and here");

    // Where nobody would see what it mounts, it isn't started.
    mount(None::<&str>, &shared.0, None::<&str>, MsFlags::MS_PRIVATE, None::<&str>).unwrap();
    let own = json!({"command": ["true"], "volumeMounts": at("Bidirectional"), "securityContext": {"privileged": true}});
    host.contained("alone", own, volume);
    host.until_event("Failed", |why| why.contains("is not on a shared mount of the host")).await;
    host.shut_down().await;
}
