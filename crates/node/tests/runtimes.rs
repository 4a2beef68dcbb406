//! The same manifests on all runtimes: containers of this program's own, those of containerd, and plain processes of the host. What a
//! user sees of a pod doesn't depend on what runs it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on ends")]

mod support;

use std::fs;

use serde_json::{Value, json};
use store::{Store, Txn};
use support::cgroups::Top;
use support::containerd::{BOX, on_a_host};
use support::{TestHost, is_ready, main_status, merge};

/// The RuntimeClass of each; containerd's are those without.
const CLASSES: [(&str, &str); 3] = [("oci", "oci"), ("cri", ""), ("host", "host")];

/// A manifest, and what is to be seen of its pod.
struct Case {
    name: &'static str,
    container: Value,
    spec: Value,
    /// The pod's phase and reason, and of each container its name, why and how it ended or waits, its last words, and its restarts.
    seen: &'static [&'static str],
    /// What the container `main` printed in its last life.
    printed: &'static str,
}

fn script(text: &str) -> Value {
    json!({"command": ["sh", "-c", text]})
}

fn with(text: &str, more: Value) -> Value {
    let mut container = script(text);
    merge(&mut container, &more);
    container
}

/// What of a pod is the same wherever it runs.
fn seen(pod: &Value) -> Vec<String> {
    let status = &pod["status"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = vec![text(&status["phase"]), text(&status["reason"])];
    all.retain(|word| !word.is_empty());
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
    for one in lists.into_iter().flatten().flatten() {
        let (name, state) = (text(&one["name"]), &one["state"]);
        let (ended, waits) = (&state["terminated"], &state["waiting"]);
        let mut line = format!("{name}: {}{}", text(&ended["reason"]), text(&waits["reason"]));
        if let Some(code) = ended["exitCode"].as_i64() {
            line += &format!(" {code}");
        }
        // Why none could begin is each runtime's own to say.
        if let Some(words) = ended["message"].as_str().filter(|_| ended["reason"] == "Error") {
            line += &format!(" {words:?}");
        }
        if one["restartCount"] != 0 {
            line += &format!(", after {}", one["restartCount"]);
        }
        all.push(line);
    }
    all
}

/// Whether nothing of a pod runs any more.
fn is_over(pod: &Value) -> bool {
    let status = &pod["status"];
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| status[list].as_array());
    let runs = lists.into_iter().flatten().flatten().any(|one| !one["state"]["running"].is_null());
    matches!(status["phase"].as_str(), Some("Succeeded" | "Failed")) && !runs
}

/// The same pod for a runtime: names, images and classes are its own.
fn place(host: &TestHost, case: &Case, (runtime, class): (&str, &str)) -> String {
    let name = format!("{}-{runtime}", case.name);
    let mut container = json!({"image": "box"});
    merge(&mut container, &case.container);
    let mut spec = case.spec.clone();
    let class = if class.is_empty() { Value::Null } else { class.into() };
    merge(&mut spec, &json!({"runtimeClassName": class}));
    let of_runtime = |value: &Value| -> Value {
        let text = value.to_string();
        let text = if runtime == "cri" {
            text.replace(r#""image":"box""#, &format!(r#""image":"{BOX}""#))
        } else {
            text
        };
        serde_json::from_str(&text).unwrap()
    };
    host.contained(&name, of_runtime(&container), of_runtime(&spec));
    name
}

/// A host of all runtimes, with the image, and what the manifests name.
fn bring(host: &TestHost) {
    host.image("box", &json!({"Env": ["PATH=/bin"]}));
    for class in ["oci", "host"] {
        let object = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1",
            "metadata": {"name": class}, "handler": class});
        let put = Txn::put(objects::key("node.k8s.io", "runtimeclasses", "", class), object.to_string());
        futures::FutureExt::now_or_never(host.writer.store.txn(put)).unwrap().unwrap();
    }
    for (kind, word) in [("ConfigMap", "open"), ("Secret", "Y292ZXJlZA==")] {
        host.writer.put(&json!({"kind": kind, "apiVersion": "v1",
            "metadata": {"name": "words", "namespace": "default", "uid": kind}, "data": {"word": word}}));
    }
}

fn data() -> Value {
    json!([{"name": "data", "emptyDir": {}}])
}

fn mounts() -> Value {
    json!([{"name": "data", "mountPath": "/data"}])
}

/// How a container begins and ends.
fn lives() -> Vec<Case> {
    let step = |name: &str, text: &str| json!({"name": name, "image": "box", "command": ["sh", "-c", text], "volumeMounts": mounts()});
    let mut side = step(
        "side",
        "echo side >> /data/said; trap 'exit 0' TERM; touch /data/up; while :; do sleep 0.1; done",
    );
    merge(
        &mut side,
        &json!({"restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["test", "-e", "/data/up"]}, "periodSeconds": 1}}),
    );
    let steps =
        json!([step("first", "echo first > /data/said"), side, step("last", "echo last >> /data/said")]);
    // The shell may say what ended in it.
    let patient = "exec 2> /dev/null; trap 'exit 9' TERM; while :; do sleep 0.1; done";
    vec![
        Case {
            name: "ordered",
            container: with("cat /data/said", json!({"volumeMounts": mounts()})),
            spec: json!({"initContainers": steps, "volumes": data()}),
            seen: &[
                "Succeeded",
                "first: Completed 0",
                "side: Completed 0",
                "last: Completed 0",
                "main: Completed 0",
            ],
            printed: "first\nside\nlast\n",
        },
        Case {
            name: "fails",
            container: script("echo said; exit 3"),
            spec: json!({}),
            seen: &["Failed", "main: Error 3"],
            printed: "said\n",
        },
        Case {
            name: "last-words",
            container: with(
                "printf 'said\nno more'; exit 3",
                json!({"terminationMessagePolicy": "FallbackToLogsOnError"}),
            ),
            spec: json!({}),
            seen: &["Failed", "main: Error 3 \"said\\nno more\""],
            printed: "said\nno more\n",
        },
        Case {
            name: "again",
            container: with(
                "test -e /data/x && echo twice && exit 0; touch /data/x; exit 1",
                json!({"volumeMounts": mounts()}),
            ),
            spec: json!({"restartPolicy": "OnFailure", "volumes": data()}),
            seen: &["Succeeded", "main: Completed 0, after 1"],
            printed: "twice\n",
        },
        Case {
            name: "first-fails",
            container: script("echo never"),
            spec: json!({"initContainers": [{"name": "first", "image": "box", "command": ["sh", "-c", "exit 5"]}]}),
            seen: &["Failed", "first: Error 5", "main: PodInitializing"],
            printed: "",
        },
        Case {
            name: "late",
            container: script(patient),
            spec: json!({"activeDeadlineSeconds": 1}),
            seen: &["Failed", "DeadlineExceeded", "main: Error 9"],
            printed: "",
        },
        Case {
            name: "hooked",
            container: with(
                "while ! test -e /data/begun; do sleep 0.1; done; echo begun",
                json!({"volumeMounts": mounts(),
                    "lifecycle": {"postStart": {"exec": {"command": ["touch", "/data/begun"]}}}}),
            ),
            spec: json!({"volumes": data()}),
            seen: &["Succeeded", "main: Completed 0"],
            printed: "begun\n",
        },
        Case {
            name: "no-program",
            container: json!({"command": ["/bin/no-such-program"]}),
            spec: json!({}),
            seen: &["Failed", "main: StartError 128"],
            printed: "",
        },
    ]
}

/// What a container is given.
fn gifts() -> Vec<Case> {
    let variable = |name: &str, from: Value| json!({"name": name, "valueFrom": from});
    let variables = json!([
        variable("NODE", json!({"fieldRef": {"fieldPath": "spec.nodeName"}})),
        variable("LABEL", json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}})),
        {"name": "BOTH", "value": "$(NODE)-$(LABEL)-$$(NODE)-$(NONE)"},
        variable("LIMIT", json!({"resourceFieldRef": {"resource": "limits.memory"}})),
        variable("OPEN", json!({"configMapKeyRef": {"name": "words", "key": "word"}})),
        variable("COVERED", json!({"secretKeyRef": {"name": "words", "key": "word"}})),
        variable("NONE", json!({"configMapKeyRef": {"name": "none", "key": "word", "optional": true}})),
    ]);
    let volumes = json!([
        {"name": "c", "configMap": {"name": "words"}},
        {"name": "s", "secret": {"secretName": "words", "defaultMode": 256, "items": [{"key": "word", "path": "deep/renamed"}]}},
        {"name": "p", "projected": {"sources": [
            {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"configMap": {"name": "words"}}]}},
        {"name": "data", "emptyDir": {}}]);
    let places = json!([{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}, {"name": "p", "mountPath": "/p"},
        {"name": "data", "mountPath": "/data"}, {"name": "data", "mountPath": "/part", "subPath": "a/b"},
        {"name": "data", "mountPath": "/named", "subPathExpr": "of-$(LABEL)"},
        {"name": "data", "mountPath": "/fixed", "readOnly": true}]);
    let looks = "for f in /c/word /s/deep/renamed /p/labels /p/word; do cat $f; echo; done; stat -L -c %a /s/deep/renamed; \
        for f in /c/x /s/x /fixed/x; do touch $f 2> /dev/null && echo $f; done; \
        echo part > /part/f; echo named > /named/f; cat /data/a/b/f /data/of-x/f";
    vec![
        Case {
            name: "variables",
            container: with(
                "echo $NODE $LABEL $BOTH $LIMIT $OPEN $COVERED $P_word",
                json!({"env": variables, "envFrom": [{"prefix": "P_", "configMapRef": {"name": "words"}}],
                    "resources": {"limits": {"memory": "64Mi"}}}),
            ),
            spec: json!({}),
            seen: &["Succeeded", "main: Completed 0"],
            printed: "n1 x n1-x-$(NODE)-$(NONE) 67108864 open covered open\n",
        },
        Case {
            name: "volumes",
            container: with(
                looks,
                json!({"volumeMounts": places,
                    "env": [variable("LABEL", json!({"fieldRef": {"fieldPath": "metadata.labels['app']"}}))]}),
            ),
            spec: json!({"volumes": volumes}),
            seen: &["Succeeded", "main: Completed 0"],
            printed: "open\ncovered\napp=\"x\"\nopen\n400\npart\nnamed\n",
        },
        Case {
            name: "users",
            container: with(
                "id -u; id -g; id -G; touch /data/x && stat -c '%u %g' /data/x; touch /etc/x 2> /dev/null || echo no",
                json!({"volumeMounts": mounts(), "securityContext": {"runAsUser": 44}}),
            ),
            spec: json!({"volumes": data(), "securityContext": {"runAsUser": 1, "runAsGroup": 34, "fsGroup": 35}}),
            seen: &["Succeeded", "main: Completed 0"],
            printed: "44\n34\n34 35\n44 35\nno\n",
        },
        Case {
            name: "without-its-words",
            container: with(
                "true",
                json!({"env": [variable("WORD", json!({"configMapKeyRef": {"name": "none", "key": "word"}}))]}),
            ),
            spec: json!({}),
            seen: &["Pending", "main: CreateContainerConfigError"],
            printed: "",
        },
        Case {
            name: "root-where-none-may-be",
            container: with("true", json!({"securityContext": {"runAsUser": 0, "runAsNonRoot": true}})),
            spec: json!({}),
            seen: &["Pending", "main: CreateContainerConfigError"],
            printed: "",
        },
    ]
}

#[test]
fn what_a_user_sees_of_a_pod_is_the_same_on_all_runtimes() {
    on_a_host(|mut host, client| async move {
        bring(&host);
        let cases: Vec<Case> = lives().into_iter().chain(gifts()).collect();
        let mut wrong = Vec::new();
        let mut names = Vec::new();
        for case in &cases {
            for runtime in CLASSES {
                let name = place(&host, case, runtime);
                let pod = host.until(&name, case.name, |pod| seen(pod) == case.seen || is_over(pod)).await;
                let attempt = main_status(&pod)["restartCount"].as_u64().unwrap_or_default() as u32;
                let (seen, printed) = (seen(&pod), host.log(&name, attempt));
                if seen != case.seen || printed != case.printed {
                    wrong.push(format!("{name}: {seen:?} {printed:?}"));
                }
                names.push(name);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        for name in names {
            host.delete(&name, 1);
            host.until_gone(&name).await;
        }
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        host.shut_down().await;
    });
}

#[test]
fn probes_and_the_end_are_the_same_on_all_runtimes() {
    on_a_host(|mut host, client| async move {
        bring(&host);
        let stopped = host.folder.path().join("stopped");
        fs::create_dir(&stopped).unwrap();
        let serves = "echo hi > /data/index.html; exec busybox httpd -f -p 8080 -h /data";
        let answers = |path: &str| json!({"httpGet": {"path": path, "port": 8080}, "periodSeconds": 1});
        for (runtime, class) in CLASSES {
            let web = Case {
                name: "web",
                container: with(
                    serves,
                    json!({"volumeMounts": mounts(), "startupProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
                        "readinessProbe": answers("/"), "livenessProbe": answers("/index.html")}),
                ),
                spec: json!({"restartPolicy": "Always", "volumes": data()}),
                seen: &[],
                printed: "",
            };
            let name = place(&host, &web, (runtime, class));
            let pod = host.until(&name, "ready", is_ready).await;
            assert_eq!(main_status(&pod)["restartCount"], 0, "{runtime}");
            host.delete(&name, 1);
            host.until_gone(&name).await;

            // One that isn't well begins anew, by the signal that ends it, and tells by its hook that it ends for good.
            let sick = Case {
                name: "sick",
                container: with(
                    "trap 'exit 9' TERM; while :; do sleep 0.1; done",
                    json!({"volumeMounts": [{"name": "stopped", "mountPath": "/stopped"}],
                        "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
                        "lifecycle": {"preStop": {"exec": {"command": ["touch", format!("/stopped/{runtime}")]}}}}),
                ),
                spec: json!({"restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
                    "volumes": [{"name": "stopped", "hostPath": {"path": stopped, "type": "Directory"}}]}),
                seen: &[],
                printed: "",
            };
            let name = place(&host, &sick, (runtime, class));
            let began_anew = |pod: &Value| main_status(pod)["restartCount"].as_u64() >= Some(1);
            let pod = host.until(&name, "begun anew", began_anew).await;
            let last = &main_status(&pod)["lastState"]["terminated"];
            assert_eq!(
                (&last["exitCode"], &last["reason"]),
                (&json!(9), &json!("Error")),
                "{runtime}: {last}"
            );
            assert!(stopped.join(runtime).exists(), "{runtime}");
            host.delete(&name, 1);
            host.until_gone(&name).await;
        }
        assert_eq!(client.pod_sandboxes(Default::default()).await.unwrap(), []);
        host.shut_down().await;
    });
}

/// What a pod that is held back tries to get out; each must fail.
fn attempts(outside: &str, agent: u32) -> Vec<(&'static str, String)> {
    vec![
        ("a process of another pod", "ps | grep '[s]leep 4242'".into()),
        ("variables of others", "grep -l covered-by-its-pod /proc/[0-9]*/environ".into()),
        ("the agent's process", format!("kill -0 {agent}")),
        ("a file of the host", format!("cat {outside}/secret")),
        ("the host's by the first process", format!("cat /proc/1/root{outside}/secret")),
        ("a set-uid program", "busybox-root su -c 'test $(id -u) = 0' < /dev/null".into()),
        ("a mount", "mount -t tmpfs none /tmp".into()),
        ("a device", "mknod /tmp/disk b 254 0".into()),
        ("users of its own", "unshare -Ur true".into()),
        ("the kernel's settings", "echo 1 > /proc/sys/kernel/panic".into()),
        ("the kernel's keys", "echo h > /proc/sysrq-trigger".into()),
        ("the kernel's memory", "test -n \"$(head -c 16 /proc/kcore | tr -d '\\0')\"".into()),
        ("its cgroup", "mkdir /sys/fs/cgroup/out".into()),
        ("its image", "touch /bin/mine".into()),
        ("a link out of its volume", "ln -s / /data/out && cat /data/out".to_owned() + outside + "/secret"),
    ]
}

#[test]
fn what_is_tried_from_inside_of_a_container_leads_nowhere() {
    on_a_host(|mut host, _| async move {
        bring(&host);
        let outside = host.folder.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "of the host").unwrap();
        let tried = attempts(outside.to_str().unwrap(), std::process::id());
        // The last shows that what gets out is seen.
        let tried: Vec<_> = tried.into_iter().chain([("nothing", "true".into())]).collect();
        let text: String = tried
            .iter()
            .map(|(what, how)| format!("({how}) > /dev/null 2>&1 && echo \"{what}\"; "))
            .collect();
        for runtime in &CLASSES[..2] {
            let neighbour = Case {
                name: "neighbour",
                container: with(
                    "exec sleep 4242",
                    json!({"env": [{"name": "WORD", "value": "covered-by-its-pod"}]}),
                ),
                spec: json!({}),
                seen: &[],
                printed: "",
            };
            let held = Case {
                name: "held",
                container: with(
                    &format!("{text}true"),
                    json!({"volumeMounts": mounts(), "securityContext": {"runAsUser": 33, "runAsNonRoot": true,
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
                        "seccompProfile": {"type": "RuntimeDefault"}}}),
                ),
                spec: json!({"volumes": data(), "securityContext": {"fsGroup": 33}}),
                seen: &[],
                printed: "",
            };
            let beside = place(&host, &neighbour, *runtime);
            host.until(&beside, "running", is_ready).await;
            let name = place(&host, &held, *runtime);
            let pod = host.until(&name, "over", is_over).await;
            assert_eq!(host.log(&name, 0), "nothing\n", "{}: {}", runtime.0, main_status(&pod));
            for name in [name, beside] {
                host.delete(&name, 0);
                host.until_gone(&name).await;
            }
        }
        host.shut_down().await;
    });
}

#[test]
fn who_forks_without_end_leaves_room_for_others_on_all_runtimes() {
    on_a_host(|mut host, _| async move {
        let Some(top) = Top::make("bombs") else { return };
        if !top.bound_processes(128) {
            return testing::skip("cgroups", "no controller here bounds the number of processes");
        }
        host.agent.take().unwrap().leave().await;
        host.cgroups = top.0.clone();
        host.switch_on();
        bring(&host);
        for runtime in CLASSES {
            let bomb = Case {
                name: "bomb",
                container: script("while :; do sleep 1000 & done"),
                spec: json!({"restartPolicy": "Always"}),
                seen: &[],
                printed: "",
            };
            let other = Case {
                name: "other",
                container: with(
                    "for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done; echo all; wait",
                    json!({"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}),
                ),
                spec: json!({}),
                seen: &[],
                printed: "",
            };
            let log = |pod: &str| {
                host.folder.path().join(format!("agent/logs/default_{pod}_uid-of-{pod}/main/0.log"))
            };
            let bomb = place(&host, &bomb, runtime);
            host.until_file(&log(&bomb), |text| text.contains("fork")).await;
            assert_eq!(top.read(&format!("uid-of-{bomb}"), "", "pids.max").as_deref(), Some("57"));
            let other = place(&host, &other, runtime);
            host.until(&other, "ready", is_ready).await;
            // It may be ready before it has said so.
            host.until_file(&log(&other), |text| text.contains('\n')).await;
            assert_eq!(host.log(&other, 0), "all\n", "{}", runtime.0);
            for name in [bomb, other] {
                host.delete(&name, 0);
                host.until_gone(&name).await;
            }
        }
        host.shut_down().await;
        assert!(top.is_empty());
    });
}
