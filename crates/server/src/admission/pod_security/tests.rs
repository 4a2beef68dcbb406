use machinery::Object;
use serde_json::{Value, json};

use store::{Op, State, Txn};

use super::check::Subject;
use super::policy::{Level, Policies, Policy, Version};
use super::violations;

fn found(level: Level, version: Version, spec: Value) -> String {
    let pod = Object::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
    violations(&Policy { level, version }, &Subject::of_pod(&pod, &classes())).unwrap_or_default()
}

/// The runtime classes that the pods here may name: by their handlers, not by their names.
fn classes() -> State {
    let class = |(name, handler): (&str, &str)| {
        let class = json!({"kind": "RuntimeClass", "apiVersion": "node.k8s.io/v1", "metadata": {"name": name},
            "handler": handler});
        let key = objects::key("node.k8s.io", "runtimeclasses", "", name);
        Op::put(key, class.to_string())
    };
    let classes = [("host", "host"), ("harmless", "host"), ("host-like", "oci"), ("gvisor", "runsc")];
    let mut state = State::default();
    let success = classes.into_iter().map(class).collect();
    state.apply(&Txn { conditions: vec![], success, failure: vec![] }).unwrap();
    state
}

#[test]
fn processes_of_the_host_are_neither_baseline_nor_restricted_whatever_their_class_is_called() {
    let pod = |class: &str| hardened(|spec| spec["runtimeClassName"] = json!(class));
    for class in ["host", "harmless"] {
        let fault = format!(
            "hostProcess (pod must not set runtimeClassName=\"{class}\", which runs it as processes of the host)"
        );
        for version in [Version::default(), Version::v1(0), Version::v1(35)] {
            assert_eq!(found(Level::Baseline, version, pod(class)), fault);
            assert!(found(Level::Restricted, version, pod(class)).contains(&fault));
            assert_eq!(found(Level::Privileged, version, pod(class)), "");
        }
    }
    for class in ["host-like", "gvisor", "not-there", ""] {
        assert_eq!(restricted(pod(class)), "", "{class:?}");
    }
    let windows = hardened(|spec| {
        spec["runtimeClassName"] = json!("host");
        spec["containers"][0]["securityContext"]["windowsOptions"] = json!({"hostProcess": true});
    });
    assert_eq!(
        baseline(windows),
        "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true; pod must not set \
         runtimeClassName=\"host\", which runs it as processes of the host)"
    );
}

fn baseline(spec: Value) -> String {
    found(Level::Baseline, Version::default(), spec)
}

fn restricted(spec: Value) -> String {
    found(Level::Restricted, Version::default(), spec)
}

/// A pod with one container that is as restricted as it must be, changed by `change`.
fn hardened(change: impl FnOnce(&mut Value)) -> Value {
    let mut spec = json!({
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}],
    });
    change(&mut spec);
    spec
}

#[test]
fn a_plain_pod_is_baseline_and_not_restricted() {
    let plain = json!({"containers": [{"name": "web"}]});
    assert_eq!(baseline(plain.clone()), "");
    assert_eq!(
        restricted(plain),
        "allowPrivilegeEscalation != false (container \"web\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"web\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"web\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"web\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(restricted(hardened(|_| {})), "");
}

#[test]
fn baseline_forbids_the_known_ways_out_of_a_pod() {
    let container = |context: Value| json!({"containers": [{"name": "a", "securityContext": context}]});
    for (spec, fault) in [
        (
            json!({"hostNetwork": true, "hostPID": true, "hostIPC": true}),
            "host namespaces (hostNetwork=true, hostPID=true, hostIPC=true)",
        ),
        (
            container(json!({"privileged": true})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
        ),
        (
            container(json!({"capabilities": {"add": ["CHOWN", "SYS_ADMIN", "NET_ADMIN"]}})),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\", \"SYS_ADMIN\" in \
             securityContext.capabilities.add)",
        ),
        (
            json!({"volumes": [{"name": "x", "hostPath": {}}, {"name": "y", "hostPath": {}}]}),
            "hostPath volumes (volumes \"x\", \"y\")",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}, {"hostPort": 443}]}]}),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
        ),
        (
            json!({"initContainers": [{"name": "i", "livenessProbe": {"httpGet": {"host": "1.2.3.4"}}}]}),
            "probe or lifecycle host (container \"i\" uses probe or lifecycle host \"1.2.3.4\")",
        ),
        (
            container(json!({"procMount": "Unmasked"})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "foo", "user": "u"}},
                "containers": [{"name": "b", "securityContext": {"seLinuxOptions": {"type": "bar"}}}]}),
            "seLinuxOptions (pod and container \"b\" set forbidden securityContext.seLinuxOptions: types \"bar\", \
             \"foo\"; user may not be set)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "b"}, {"name": "a"}]}}),
            "forbidden sysctls (b, a)",
        ),
        (
            json!({"securityContext": {"windowsOptions": {"hostProcess": true}}}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
        (
            container(json!({"appArmorProfile": {"type": "Unconfined"}})),
            "forbidden AppArmor profile (container \"a\" must not set AppArmor profile type to \"Unconfined\")",
        ),
    ] {
        assert_eq!(baseline(spec), fault);
    }
}

#[test]
fn restricted_asks_for_more_than_baseline() {
    let of_container =
        |field: &str, value: Value| hardened(|spec| spec["containers"][0]["securityContext"][field] = value);
    for (spec, fault) in [
        (
            of_container("runAsNonRoot", json!(false)),
            "runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)",
        ),
        (of_container("runAsUser", json!(0)), "runAsUser=0 (container \"a\" must not set runAsUser=0)"),
        (
            of_container("capabilities", json!({"drop": ["ALL"], "add": ["NET_BIND_SERVICE", "CHOWN"]})),
            "unrestricted capabilities (container \"a\" must not include \"CHOWN\" in \
             securityContext.capabilities.add)",
        ),
        (
            hardened(|spec| {
                spec["volumes"] = json!([{"name": "h", "hostPath": {}}, {"name": "n", "nfs": {}}])
            }),
            "restricted volume types (volumes \"h\", \"n\" use restricted volume types \"hostPath\", \"nfs\")",
        ),
    ] {
        assert_eq!(restricted(spec), fault);
    }
}

#[test]
fn each_version_has_the_checks_of_its_time() {
    let plain = json!({"containers": [{"name": "a"}]});
    let old = found(Level::Restricted, Version::v1(7), plain);
    assert_eq!(
        old,
        "runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true)"
    );
    let probe = json!({"containers": [{"name": "a", "livenessProbe": {"tcpSocket": {"host": "h"}}}]});
    assert_eq!(found(Level::Baseline, Version::v1(33), probe), "");
    let sysctl = json!({"securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}]}});
    assert_eq!(
        found(Level::Baseline, Version::v1(31), sysctl.clone()),
        "forbidden sysctls (net.ipv4.tcp_rmem)"
    );
    assert_eq!(baseline(sysctl), "");
    let windows = hardened(|spec| {
        spec["os"] = json!({"name": "windows"});
        spec["securityContext"] = json!({"runAsNonRoot": true});
        spec["containers"][0]["securityContext"] = json!({});
    });
    assert_eq!(restricted(windows.clone()), "");
    assert!(found(Level::Restricted, Version::v1(24), windows).contains("seccompProfile"));
    let own_users = hardened(|spec| {
        spec["hostUsers"] = json!(false);
        spec["securityContext"]["runAsUser"] = json!(0);
    });
    assert_eq!(restricted(own_users.clone()), "");
    assert!(found(Level::Restricted, Version::v1(34), own_users).contains("runAsUser=0"));
}

#[test]
fn what_is_enforced_is_warned_of_unless_the_namespace_says_otherwise() {
    let of = |labels: &[(&'static str, &'static str)]| {
        let labels =
            labels.iter().map(|(name, value)| (format!("pod-security.kubernetes.io/{name}"), *value));
        let labels: Vec<(String, &str)> = labels.collect();
        let policies = Policies::of(&labels.iter().map(|(name, value)| (name.as_str(), *value)).collect());
        (policies.enforce.to_string(), policies.warn.to_string())
    };
    let pair = |enforce: &str, warn: &str| (enforce.to_owned(), warn.to_owned());
    assert_eq!(of(&[]), pair("privileged:latest", "privileged:latest"));
    assert_eq!(of(&[("enforce", "baseline")]), pair("baseline:latest", "baseline:latest"));
    assert_eq!(
        of(&[("enforce", "baseline"), ("enforce-version", "v1.30"), ("warn", "restricted")]),
        pair("baseline:v1.30", "restricted:latest")
    );
    assert_eq!(of(&[("enforce", "nonsense")]).0, "restricted:latest");
    for label in super::LABELS {
        assert!(label.fault("nonsense").is_some() && label.fault("v1.01").is_some());
    }
}
