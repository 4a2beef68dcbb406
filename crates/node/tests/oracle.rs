//! The same bundle by this host's shim and by another runtime, Debian's `runc`: its process must see the same.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use support::TestHost;
use support::image::{can_contain, make_root};

/// What a process tells of itself, part by part.
const FACTS: &str = "echo '== status'; grep -E '^(Uid|Gid|Groups|Cap[A-Z].*|NoNewPrivs|Seccomp):' /proc/self/status; \
    echo '== variables'; env | sort | grep -v '^_='; \
    echo '== folder'; pwd; umask; \
    echo '== devices'; cd /dev; ls -lL null zero full random urandom tty | tr -s ' ' | cut -d' ' -f1,5,6,10; ls -l fd stdin stdout stderr ptmx core 2> /dev/null | sed 's/.* \\([a-z]* -> \\)/\\1/'; \
    ls -d pts shm mqueue; \
    echo '== kernel'; cat /proc/self/oom_score_adj; hostname; for n in ipc uts; do readlink /proc/self/ns/$n; done; echo $$$$; \
    echo '== files'; cat /etc/hosts /etc/hostname /v/file; \
    echo '== denied'; for try in 'unshare -U true' 'mount -t tmpfs none /tmp' 'chroot / true' 'touch /etc/x' 'touch /v/x' 'touch /ro/x' \
    'cat /proc/kcore' 'touch /proc/sys/kernel/hostname' 'ls /sys/firmware' 'mkdir /sys/x'; do \
    $try > /dev/null 2>&1 < /dev/null; echo $try: $?; done; \
    echo '== mounts'; cat /proc/self/mountinfo; echo '== end'";

/// The parts of what was told.
fn parts(text: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut parts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        match line.strip_prefix("== ") {
            Some(next) => name = next,
            None => parts.entry(name).or_default().push(line),
        }
    }
    parts
}

/// The mounts that both are to have, with what may be done in them: where, and of `ro`, `nosuid` and `noexec` which hold.
///
/// Ours shows devices one by one and lets no others count (`nodev`), where others have the kernel's rules for devices; and control
/// groups are those of the system, of version 2 here.
fn mounts(lines: &[&str]) -> BTreeSet<String> {
    let own = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/"];
    let mount = |line: &&str| {
        let mut fields = line.split(' ').skip(4);
        let (place, options) = (fields.next()?, fields.next()?);
        if own.contains(&place) || place.starts_with("/sys/fs/cgroup") {
            return None;
        }
        let held = ["ro", "nosuid", "noexec"]
            .into_iter()
            .filter(|held| options.split(',').any(|known| known == *held));
        Some(format!("{place} {}", held.collect::<Vec<_>>().join(",")))
    };
    lines.iter().filter_map(mount).collect()
}

/// What the runtime's process tells of the bundle.
fn by_other(runtime: &str, config: &Path, folder: &Path) -> String {
    std::fs::create_dir_all(folder.join("rootfs")).unwrap();
    std::fs::copy(config, folder.join("config.json")).unwrap();
    make_root(&folder.join("rootfs"));
    let id = format!("holdfast-{}", std::process::id());
    let mut command = Command::new(runtime);
    command.arg("--root").arg(folder.join("state")).args(["run", "--bundle"]).arg(folder).arg(id);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{runtime}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_is_the_same_by_another_runtime() {
    if !can_contain() || !testing::has("runc") {
        return;
    }
    let mut host = TestHost::start();
    host.image("box", &json!({"Env": ["A=1"], "WorkingDir": "/made"}));
    let data = host.folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "data\n").unwrap();
    let mut differs = Vec::new();
    for (name, own, pod) in [
        ("default", json!({}), json!({})),
        (
            "held",
            json!({"runAsUser": 33, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"}, "readOnlyRootFilesystem": true}),
            json!({"supplementalGroups": [70], "fsGroup": 71}),
        ),
        (
            "more",
            json!({"capabilities": {"add": ["SYS_ADMIN", "NET_ADMIN"]}, "seccompProfile": {"type": "RuntimeDefault"}}),
            json!({}),
        ),
    ] {
        let script = format!("{FACTS}; if test -e /v/stay-{name}; then exec sleep 1000; fi");
        let container = json!({"command": ["sh", "-c", script], "securityContext": own, "volumeMounts": [
            {"name": "v", "mountPath": "/v"}, {"name": "v", "mountPath": "/ro", "readOnly": true}]});
        let spec = json!({"securityContext": pod, "volumes": [{"name": "v", "hostPath": {"path": data}}]});
        let stay = data.join(format!("stay-{name}"));
        std::fs::write(&stay, "").unwrap();
        let uid = host.contained(name, container, spec);
        let log = host.folder.path().join(format!("agent/logs/default_{name}_{uid}/main/0.log"));
        host.until_file(&log, |text| text.contains("== end")).await;
        let ours = host.log(name, 0);
        // The sandbox lives as long as the container does: the other one is in it, too.
        std::fs::remove_file(&stay).unwrap();
        let config = host.folder.path().join(format!("agent/pods/{uid}/bundles/main/config.json"));
        let theirs = by_other("runc", &config, &host.folder.path().join(format!("other-{name}")));
        let (ours, theirs) = (parts(&ours), parts(&theirs));
        for part in ["status", "variables", "folder", "devices", "kernel", "files", "denied"] {
            if ours[part] != theirs[part] {
                differs.push(format!("{name}: {part}: {:?}, and not {:?}", ours[part], theirs[part]));
            }
        }
        let (ours, theirs) = (mounts(&ours["mounts"]), mounts(&theirs["mounts"]));
        let alone = |one: &BTreeSet<String>, other| one.difference(other).cloned().collect::<Vec<_>>();
        if ours != theirs {
            differs.push(format!(
                "{name}: mounts: {:?}, and not {:?}",
                alone(&ours, &theirs),
                alone(&theirs, &ours)
            ));
        }
        host.delete(name, 0);
        host.until_gone(name).await;
    }
    host.shut_down().await;
    assert!(differs.is_empty(), "{differs:#?}");
}
