//! Pods as Kubernetes' own conformance tests of nodes make them (test/e2e/common/node and test/e2e/common/storage upstream), with images of
//! the names that they use. What those images do here is made of busybox, as far as these pods ask for it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use support::image::can_contain;
use support::{TestHost, is_ready, main_status, merge};

const AGNHOST: &str = "registry.k8s.io/e2e-test-images/agnhost:2.56";
const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1";
const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-4";
const PAUSE: &str = "registry.k8s.io/pause:3.10.1";

/// What the pods ask of agnhost: it shows its arguments, looks at files, waits, and serves.
const AGNHOST_DOES: &str = r#"#!/bin/sh
case "$1" in
entrypoint-tester) echo "[$0 $*]" ;;
pause) exec sleep 100000 ;;
netexec) mkdir -p /tmp/www && echo hi > /tmp/www/healthz && exec httpd -f -p 8080 -h /tmp/www ;;
mounttest)
    shift
    for asked in "$@"; do
        file=${asked#*=}
        case "$asked" in
        --fs_type=*) echo "mount type of \"$file\": $(grep " $file " /proc/mounts | tail -n 1 | cut -d' ' -f3)" ;;
        --file_content=*) echo "content of file \"$file\": $(cat "$file")" ;;
        --file_perm=* | --file_mode=*) echo "perms of file \"$file\": -$(stat -L -c %A "$file" | cut -c2-)" ;;
        --new_file_*)
            mode=${asked#--new_file_}
            printf 'mount-tester new file' > "$file" && chmod "${mode%%=*}" "$file"
            ;;
        esac
    done
    ;;
esac
"#;

fn program(root: &Path, name: &str, text: &str) {
    fs::write(root.join(name), text).unwrap();
    fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

fn bring_images(host: &TestHost) {
    let path = json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    let agnhost = json!({"Env": path, "Entrypoint": ["/agnhost"], "Cmd": ["pause"]});
    host.image_with(AGNHOST, &agnhost, |root| {
        program(root, "agnhost", AGNHOST_DOES);
        program(root, "agnhost-2", AGNHOST_DOES);
    });
    host.image(BUSYBOX, &json!({"Env": path, "Cmd": ["sh"]}));
    let nginx = json!({"Env": path, "Cmd": ["nginx", "-g", "daemon off;"], "StopSignal": "SIGQUIT"});
    host.image_with(NGINX, &nginx, |root| {
        let serves = "#!/bin/sh\ntrap 'echo quit; exit 0' QUIT\n[ \"$*\" = '-g daemon off;' ] || exit 1\nhttpd -p 127.0.0.1:18080 -h /srv/www\necho up\n\
                      while :; do sleep 0.1; done\n";
        program(root, "bin/nginx", serves);
    });
    host.image_with(PAUSE, &json!({"Entrypoint": ["/pause"], "User": "65535:65535"}), |root| {
        program(root, "pause", "#!/bin/sh\nexec sleep 100000\n");
    });
}

fn bring_objects(host: &TestHost) {
    let named = |kind: &str, name: &str, more: Value| {
        let mut object = json!({"kind": kind, "apiVersion": "v1",
            "metadata": {"name": name, "namespace": "default", "uid": format!("{kind}-{name}")}});
        merge(&mut object, &more);
        host.writer.put(&object);
    };
    let data = json!({"data_1": "value-1", "data-1": "value-1", "data-2": "value-2", "data-3": "value-3"});
    named(
        "ConfigMap",
        "test",
        json!({"data": data, "binaryData": {"dump.bin": "3q2+7w=="}, "immutable": true}),
    );
    let covered = json!({"data-1": "dmFsdWUtMQ0K", "data-2": "dmFsdWUtMg0K", "data-3": "dmFsdWUtMw0K"});
    named("Secret", "test", json!({"data": covered}));
}

/// One pod: its container, its spec, and what its container prints, or part of it.
type Row = (&'static str, Value, Value, &'static [&'static str]);

fn busybox(text: &str) -> Value {
    json!({"image": BUSYBOX, "command": ["sh", "-c", text]})
}

fn agnhost(args: &[&str]) -> Value {
    json!({"image": AGNHOST, "args": args})
}

fn and(mut container: Value, more: Value) -> Value {
    merge(&mut container, &more);
    container
}

/// A volume at `/etc/volume`.
fn volume(source: Value) -> Value {
    json!({"volumes": [and(json!({"name": "v"}), source)]})
}

fn at_volume() -> Value {
    json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/volume"}]})
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

fn resource(name: &str, what: &str) -> Value {
    json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": what}}})
}

/// containers.go, expansion.go.
fn commands() -> Vec<Row> {
    let composed = json!([{"name": "FOO", "value": "foo-value"}, {"name": "BAR", "value": "bar-value"},
        {"name": "FOOBAR", "value": "$(FOO);;$(BAR)"}]);
    let one = json!({"env": [{"name": "TEST_VAR", "value": "test-value"}]});
    let logs = json!({"env": [field("POD_NAME", "metadata.name")], "volumeMounts": [
        {"name": "v", "mountPath": "/logscontainer", "subPathExpr": "$(POD_NAME)"}, {"name": "v", "mountPath": "/testcontainer"}]});
    vec![
        (
            "args",
            agnhost(&["entrypoint-tester", "override", "arguments"]),
            json!({}),
            &["[/agnhost entrypoint-tester override arguments]"],
        ),
        (
            "command",
            json!({"image": AGNHOST, "command": ["/agnhost-2", "entrypoint-tester"]}),
            json!({}),
            &["[/agnhost-2 entrypoint-tester]"],
        ),
        (
            "both",
            json!({"image": AGNHOST, "command": ["/agnhost-2"], "args": ["entrypoint-tester", "override", "arguments"]}),
            json!({}),
            &["[/agnhost-2 entrypoint-tester override arguments]"],
        ),
        (
            "env-composed",
            and(busybox("env"), json!({"env": composed})),
            json!({}),
            &["FOO=foo-value", "BAR=bar-value", "FOOBAR=foo-value;;bar-value"],
        ),
        (
            "in-command",
            and(busybox("TEST_VAR=wrong echo \"$(TEST_VAR)\""), one.clone()),
            json!({}),
            &["test-value"],
        ),
        (
            "in-args",
            and(
                json!({"image": BUSYBOX, "command": ["sh", "-c"], "args": ["TEST_VAR=wrong echo \"$(TEST_VAR)\""]}),
                one,
            ),
            json!({}),
            &["test-value"],
        ),
        (
            "sub-path-expr",
            and(busybox("test -d /testcontainer/sub-path-expr && echo there"), logs),
            volume(json!({"emptyDir": {}})),
            &["there"],
        ),
    ]
}

/// downwardapi.go, and the volumes of the same kind.
fn about_itself() -> Vec<Row> {
    let fields = json!([
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("POD_IP", "status.podIP"),
        field("HOST_IP", "status.hostIP"),
        field("POD_UID", "metadata.uid"),
        field("ACCOUNT", "spec.serviceAccountName")
    ]);
    let amounts = json!([
        resource("CPU_LIMIT", "limits.cpu"),
        resource("MEMORY_LIMIT", "limits.memory"),
        resource("CPU_REQUEST", "requests.cpu"),
        resource("MEMORY_REQUEST", "requests.memory")
    ]);
    let resources =
        json!({"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}});
    let items = json!([{"path": "podname", "mode": 256, "fieldRef": {"fieldPath": "metadata.name"}},
        {"path": "cpu_limit", "resourceFieldRef": {"containerName": "main", "resource": "limits.cpu", "divisor": "1m"}}]);
    let looks = agnhost(&[
        "mounttest",
        "--file_content=/etc/volume/podname",
        "--file_mode=/etc/volume/podname",
        "--file_content=/etc/volume/cpu_limit",
    ]);
    vec![
        (
            "itself",
            and(busybox("env"), json!({"env": fields})),
            json!({"serviceAccountName": "default", "automountServiceAccountToken": false}),
            &[
                "POD_NAME=itself",
                "POD_NAMESPACE=default",
                "POD_IP=127.",
                "HOST_IP=127.0.0.1",
                "POD_UID=uid-of-itself",
                "ACCOUNT=default",
            ],
        ),
        (
            "amounts",
            and(busybox("env"), json!({"env": amounts, "resources": resources})),
            json!({}),
            &["CPU_LIMIT=2", "MEMORY_LIMIT=67108864", "CPU_REQUEST=1", "MEMORY_REQUEST=33554432"],
        ),
        (
            "downward-volume",
            and(and(looks, at_volume()), json!({"resources": resources})),
            volume(json!({"downwardAPI": {"items": items}})),
            &[
                "content of file \"/etc/volume/podname\": downward-volume",
                "perms of file \"/etc/volume/podname\": -r--------",
                "content of file \"/etc/volume/cpu_limit\": 1250",
            ],
        ),
    ]
}

/// configmap.go, secrets.go, and the volumes of these kinds.
fn objects_of_the_api() -> Vec<Row> {
    let mapped = json!([{"key": "data-2", "path": "path/to/data-2", "mode": 256}]);
    let looks = |args: &[&str]| and(agnhost(&[&["mounttest"], args].concat()), at_volume());
    let file = "--file_content=/etc/volume/data-1";
    let deep = ["--file_content=/etc/volume/path/to/data-2", "--file_mode=/etc/volume/path/to/data-2"];
    let key = |kind: &str| json!({"env": [{"name": "DATA_1", "valueFrom": {kind: {"name": "test", "key": "data-1"}}}]});
    let other = json!({"securityContext": {"runAsUser": 1000, "fsGroup": 1001}});
    vec![
        ("config-env", and(busybox("env"), key("configMapKeyRef")), json!({}), &["DATA_1=value-1"]),
        (
            "config-env-from",
            and(
                busybox("env"),
                json!({"envFrom": [{"configMapRef": {"name": "test"}}, {"prefix": "p_", "configMapRef": {"name": "test"}}]}),
            ),
            json!({}),
            &["data_1=value-1", "p_data_1=value-1"],
        ),
        ("secret-env", and(busybox("env"), key("secretKeyRef")), json!({}), &["DATA_1=value-1"]),
        (
            "config-volume",
            looks(&[file]),
            volume(json!({"configMap": {"name": "test"}})),
            &["content of file \"/etc/volume/data-1\": value-1"],
        ),
        (
            "config-mapped",
            looks(&deep),
            volume(json!({"configMap": {"name": "test", "items": mapped}})),
            &[
                "content of file \"/etc/volume/path/to/data-2\": value-2",
                "perms of file \"/etc/volume/path/to/data-2\": -r--------",
            ],
        ),
        (
            "config-binary",
            and(busybox("hexdump -C /etc/volume/dump.bin"), at_volume()),
            volume(json!({"configMap": {"name": "test"}})),
            &["de ad be ef"],
        ),
        (
            "config-as-another",
            looks(&[file, "--file_mode=/etc/volume/data-1"]),
            and(volume(json!({"configMap": {"name": "test", "defaultMode": 288}})), other.clone()),
            &[
                "content of file \"/etc/volume/data-1\": value-1",
                "perms of file \"/etc/volume/data-1\": -r--r-----",
            ],
        ),
        (
            "secret-volume",
            looks(&[file, "--file_mode=/etc/volume/data-1"]),
            and(volume(json!({"secret": {"secretName": "test", "defaultMode": 288}})), other),
            &[
                "content of file \"/etc/volume/data-1\": value-1",
                "perms of file \"/etc/volume/data-1\": -r--r-----",
            ],
        ),
        (
            "optional",
            and(busybox("ls /etc/volume | wc -l"), at_volume()),
            volume(json!({"configMap": {"name": "none", "optional": true}})),
            &["0"],
        ),
        (
            "projected-all",
            looks(&[
                "--file_content=/etc/volume/podname",
                "--file_content=/etc/volume/secret-data",
                "--file_content=/etc/volume/configmap-data",
            ]),
            volume(json!({"projected": {"sources": [
                {"secret": {"name": "test", "items": [{"key": "data-1", "path": "secret-data"}]}},
                {"configMap": {"name": "test", "items": [{"key": "data-1", "path": "configmap-data"}]}},
                {"downwardAPI": {"items": [{"path": "podname", "fieldRef": {"fieldPath": "metadata.name"}}]}}]}})),
            &["podname\": projected-all", "secret-data\": value-1", "configmap-data\": value-1"],
        ),
    ]
}

/// empty_dir.go.
fn empty_folders() -> Vec<Row> {
    let makes = |args: &[&str], user: Value| {
        let mount =
            json!({"volumeMounts": [{"name": "v", "mountPath": "/test-volume"}], "securityContext": user});
        and(agnhost(&[&["mounttest"], args].concat()), mount)
    };
    let (disk, memory) = (json!({"emptyDir": {}}), json!({"emptyDir": {"medium": "Memory"}}));
    vec![
        (
            "memory-mode",
            makes(&["--fs_type=/test-volume", "--file_perm=/test-volume"], json!({})),
            volume(memory.clone()),
            &["mount type of \"/test-volume\": tmpfs", "perms of file \"/test-volume\": -rwxrwxrwx"],
        ),
        (
            "root-0644",
            makes(
                &[
                    "--new_file_0644=/test-volume/f",
                    "--file_perm=/test-volume/f",
                    "--file_content=/test-volume/f",
                ],
                json!({}),
            ),
            volume(memory),
            &[
                "perms of file \"/test-volume/f\": -rw-r--r--",
                "content of file \"/test-volume/f\": mount-tester new file",
            ],
        ),
        (
            "non-root-0777",
            makes(
                &["--new_file_0777=/test-volume/f", "--file_perm=/test-volume/f"],
                json!({"runAsUser": 1001}),
            ),
            volume(disk),
            &["perms of file \"/test-volume/f\": -rwxrwxrwx"],
        ),
    ]
}

/// security_context.go, sysctl.go, kubelet.go, kubelet_etc_hosts.go.
fn rights() -> Vec<Row> {
    let user = |id: u32| and(busybox("id -u"), json!({"securityContext": {"runAsUser": id}}));
    let dummy = "ip link add dummy0 type dummy 2> /dev/null && echo made || echo refused";
    let aliases = json!({"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]});
    vec![
        ("user-65534", user(65534), json!({}), &["65534"]),
        ("user-0", user(0), json!({}), &["0"]),
        (
            "read-only",
            and(
                busybox("(echo test > /file) 2> /dev/null || echo refused"),
                json!({"securityContext": {"readOnlyRootFilesystem": true}}),
            ),
            json!({}),
            &["refused"],
        ),
        (
            "unprivileged",
            and(busybox(dummy), json!({"securityContext": {"privileged": false}})),
            json!({}),
            &["refused"],
        ),
        (
            "sysctl",
            busybox("sysctl kernel.shm_rmid_forced"),
            json!({"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}),
            &["kernel.shm_rmid_forced = 1"],
        ),
        (
            "sysctl-by-slashes",
            busybox("sysctl kernel.shm_rmid_forced"),
            json!({"securityContext": {"sysctls": [{"name": "kernel/shm_rmid_forced", "value": "1"}]}}),
            &["kernel.shm_rmid_forced = 1"],
        ),
        (
            "aliases",
            busybox("cat /etc/hosts"),
            aliases,
            &["# Kubernetes-managed hosts file", "123.45.67.89\tfoo\tbar"],
        ),
        (
            "own-hosts",
            and(
                busybox("grep -c managed /etc/hosts || echo none"),
                json!({"volumeMounts": [{"name": "v", "mountPath": "/etc/hosts", "subPath": "data-1"}]}),
            ),
            volume(json!({"configMap": {"name": "test"}})),
            &["0\nnone"],
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_end_print_what_they_are_to_print() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    bring_images(&host);
    bring_objects(&host);
    let rows = [commands(), about_itself(), objects_of_the_api(), empty_folders(), rights()].concat();
    for (name, container, spec, _) in &rows {
        host.contained(name, container.clone(), spec.clone());
    }
    let mut wrong = Vec::new();
    for (name, _, _, prints) in &rows {
        let over = |pod: &Value| {
            let waits = main_status(pod)["state"]["waiting"]["reason"].as_str().unwrap_or_default();
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
                || waits.ends_with("Error")
        };
        let pod = host.until(name, "over", over).await;
        let printed = host.log(name, 0);
        if pod["status"]["phase"] != "Succeeded" || !prints.iter().all(|line| printed.contains(line)) {
            wrong.push(format!("{name}: {printed:?} {}", pod["status"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    host.shut_down().await;
}

/// runtime.go: last words, and how a pod ends by its restart policy.
#[tokio::test(flavor = "multi_thread")]
async fn last_words_and_ends_are_what_they_are_to_be() {
    if !can_contain() {
        return;
    }
    let mut host = TestHost::start();
    bring_images(&host);
    let custom = json!({"terminationMessagePath": "/dev/termination-custom-log", "securityContext": {"runAsUser": 1000}});
    let fallback = json!({"terminationMessagePolicy": "FallbackToLogsOnError"});
    for (name, container, phase, words) in [
        ("default-path", busybox("echo -n DONE > /dev/termination-log"), "Succeeded", "DONE"),
        (
            "custom-path",
            and(busybox("echo -n DONE > /dev/termination-custom-log"), custom),
            "Succeeded",
            "DONE",
        ),
        ("from-log", and(busybox("echo -n DONE; /bin/false"), fallback.clone()), "Failed", "DONE"),
        ("none-of-a-success", and(busybox("echo -n DONE; /bin/true"), fallback.clone()), "Succeeded", ""),
        (
            "file-of-a-success",
            and(busybox("echo -n OK > /dev/termination-log; /bin/true"), fallback),
            "Succeeded",
            "OK",
        ),
    ] {
        host.contained(name, container, json!({}));
        let over = |pod: &Value| matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        let pod = host.until(name, "over", over).await;
        let ended = &main_status(&pod)["state"]["terminated"];
        assert_eq!(pod["status"]["phase"], phase, "{name}");
        assert_eq!(ended["message"].as_str().unwrap_or_default(), words, "{name}");
    }
    // The command of `terminate-cmd`: it fails at first, and then succeeds, is left, or fails for good.
    let counts = "f=/restart-count/restartCount; n=$(cat $f 2> /dev/null | wc -l); echo >> $f; if [ $n = 0 ]; then exit 1; fi; ";
    let mount = json!({"volumeMounts": [{"name": "restart-count", "mountPath": "/restart-count"}]});
    let folder = json!({"volumes": [{"name": "restart-count", "emptyDir": {"medium": "Memory"}}]});
    for (name, policy, after, phase, restarts, runs) in [
        ("terminate-cmd-rpa", "Always", "while :; do sleep 1; done", "Running", 1, true),
        ("terminate-cmd-rpof", "OnFailure", "exit 0", "Succeeded", 1, false),
        ("terminate-cmd-rpn", "Never", "exit 0", "Failed", 0, false),
    ] {
        let container = and(busybox(&format!("{counts}{after}")), mount.clone());
        host.contained(name, container, and(folder.clone(), json!({"restartPolicy": policy})));
        let is_so = |pod: &Value| {
            let main = main_status(pod);
            pod["status"]["phase"] == phase
                && main["restartCount"] == restarts
                && main["state"]["running"].is_null() != runs
        };
        let pod = host.until(name, "as its policy says", is_so).await;
        assert_eq!(is_ready(&pod), runs, "{name}");
    }
    host.shut_down().await;
}

/// init_container.go, container_probe.go, and what pods of nginx and pause are used for everywhere.
#[tokio::test(flavor = "multi_thread")]
async fn pods_that_stay_are_ready_and_end_by_their_images_signal() {
    if !can_contain() {
        return;
    }
    // As a shell leaves it that starts the agent in its background: the pods are to have it all the same.
    // SAFETY: a call on numbers.
    unsafe { libc::signal(libc::SIGQUIT, libc::SIG_IGN) };
    let mut host = TestHost::start();
    bring_images(&host);
    host.contained("pause", json!({"image": PAUSE}), json!({"restartPolicy": "Always"}));
    host.contained("agnhost", json!({"image": AGNHOST}), json!({"restartPolicy": "Always"}));
    let lists = json!({"exec": {"command": ["sh", "-c", "wget -q -O /dev/null http://127.0.0.1:18080/ 2>&1 | grep -q 404"]}, "periodSeconds": 1});
    let stops =
        and(json!({"image": NGINX}), json!({"ports": [{"containerPort": 80}], "readinessProbe": lists}));
    host.contained("nginx", stops, json!({"restartPolicy": "Always"}));
    let steps = json!([{"name": "init1", "image": BUSYBOX, "command": ["/bin/true"]}, {"name": "init2", "image": BUSYBOX, "command": ["/bin/true"]}]);
    let run1 = json!({"image": PAUSE, "resources": {"limits": {"cpu": "100m"}}});
    host.contained("init", run1.clone(), json!({"restartPolicy": "Always", "initContainers": steps}));
    let fails = json!([{"name": "init1", "image": BUSYBOX, "command": ["/bin/false"]}, {"name": "init2", "image": BUSYBOX, "command": ["/bin/true"]}]);
    host.contained("init-fails", run1, json!({"restartPolicy": "Always", "initContainers": fails}));
    for name in ["pause", "agnhost", "nginx", "init"] {
        host.until(name, "ready", is_ready).await;
    }
    let again = |pod: &Value| pod["status"]["initContainerStatuses"][0]["restartCount"].as_u64() >= Some(1);
    let pod = host.until("init-fails", "tried again", again).await;
    assert_eq!(pod["status"]["phase"], "Pending");
    assert_eq!(main_status(&pod)["state"]["waiting"]["reason"], "PodInitializing");

    let log = host.folder.path().join("agent/logs/default_nginx_uid-of-nginx/main/0.log");
    host.until_file(&log, |text| text.contains("up")).await;
    let kept = host.folder.path().join("nginx.log");
    fs::hard_link(&log, &kept).unwrap();
    host.delete("nginx", 30);
    host.until_gone("nginx").await;
    assert!(fs::read_to_string(kept).unwrap().contains("quit"), "it ends by SIGQUIT");
    host.shut_down().await;
}
