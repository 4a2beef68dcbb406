//! Objects and configurations as YAML: of Kubernetes, kubeadm, etcd and k3s.

use serde_json::{Map, Value};

use super::recognise::{program_words, read};
use super::{Host, Program};
use crate::File;

/// Objects within each other, at most: a list with a ConfigMap in which a file lies.
const DEEPEST: usize = 4;

/// Fields of configurations that mean the same as a flag.
const FIELDS: [(&str, Program, &str, &str); 14] = [
    ("KubeletConfiguration", Program::Kubelet, "nodeStatusUpdateFrequency", "node-status-update-frequency"),
    ("KubeletConfiguration", Program::Kubelet, "nodeLeaseDurationSeconds", "node-lease-duration-seconds"),
    ("KubeletConfiguration", Program::Kubelet, "staticPodPath", "pod-manifest-path"),
    ("KubeProxyConfiguration", Program::KubeProxy, "mode", "proxy-mode"),
    ("KubeProxyConfiguration", Program::KubeProxy, "iptables.minSyncPeriod", "iptables-min-sync-period"),
    ("KubeProxyConfiguration", Program::KubeProxy, "ipvs.minSyncPeriod", "ipvs-min-sync-period"),
    ("KubeProxyConfiguration", Program::KubeProxy, "nftables.minSyncPeriod", "nftables-min-sync-period"),
    ("KubeProxyConfiguration", Program::KubeProxy, "clientConnection.kubeconfig", "kubeconfig"),
    ("KubeSchedulerConfiguration", Program::Scheduler, "leaderElection.leaderElect", "leader-elect"),
    (
        "KubeSchedulerConfiguration",
        Program::Scheduler,
        "leaderElection.leaseDuration",
        "leader-elect-lease-duration",
    ),
    (
        "KubeSchedulerConfiguration",
        Program::Scheduler,
        "leaderElection.renewDeadline",
        "leader-elect-renew-deadline",
    ),
    (
        "KubeSchedulerConfiguration",
        Program::Scheduler,
        "leaderElection.retryPeriod",
        "leader-elect-retry-period",
    ),
    ("ClusterConfiguration", Program::ApiServer, "controlPlaneEndpoint", "control-plane-endpoint"),
    ("InitConfiguration", Program::ApiServer, "localAPIEndpoint.advertiseAddress", "advertise-address"),
];

/// The first field of any file of etcd.
const ETCD: [&str; 6] = [
    "initial-cluster",
    "heartbeat-interval",
    "election-timeout",
    "listen-client-urls",
    "listen-peer-urls",
    "initial-cluster-state",
];
const K3S: [&str; 12] = [
    "cluster-init",
    "tls-san",
    "etcd-arg",
    "kube-apiserver-arg",
    "kube-controller-manager-arg",
    "kubelet-arg",
    "kube-proxy-arg",
    "datastore-endpoint",
    "server",
    "token",
    "token-file",
    "node-ip",
];

/// Reads a value; false where nobody here knows it.
pub(crate) fn object(host: &mut Host, value: &Value, path: &str) -> bool {
    nested(host, value, path, 0)
}

fn nested(host: &mut Host, value: &Value, path: &str, depth: usize) -> bool {
    let Some(map) = value.as_object().filter(|_| depth < DEEPEST) else { return false };
    let kind = value["kind"].as_str().unwrap_or_default();
    let mut known = true;
    match kind {
        "" if ETCD.iter().any(|key| map.contains_key(*key)) => {
            host.configured.insert(Program::Etcd);
            for (key, value) in map {
                texts(value).into_iter().for_each(|text| host.set(Program::Etcd, key, &text, path));
            }
        }
        "" if K3S.iter().any(|key| map.contains_key(*key)) => {
            host.configured.insert(Program::K3s);
            k3s(host, map, false, path);
        }
        "" => known = false,
        "List" => {
            let items = value["items"].as_array().map(Vec::as_slice).unwrap_or_default();
            known = items
                .iter()
                .fold(items.is_empty(), |known, item| nested(host, item, path, depth + 1) | known);
        }
        "Pod" => known = containers(host, &value["spec"], path),
        "DaemonSet" | "Deployment" | "StatefulSet" => {
            known = containers(host, &value["spec"]["template"]["spec"], path)
        }
        "ConfigMap" if host.in_config_map => known = false,
        "ConfigMap" => {
            known = false;
            host.in_config_map = true;
            for (key, text) in value["data"].as_object().into_iter().flatten() {
                let Some(text) = text.as_str() else { continue };
                let (before, told) = (host.used, host.unknown.len());
                read(&File { path: format!("{path}#{key}"), text: text.to_owned() }, host);
                // Keys that are something else are many: they are no files that somebody gave.
                host.unknown.truncate(told);
                known |= host.used > before;
                host.used = before;
            }
            host.in_config_map = false;
        }
        "Node" => known = node(host, value, path),
        "ClusterConfiguration" => cluster(host, value, path),
        "InitConfiguration" | "JoinConfiguration" => {
            extra(host, Program::Kubelet, &value["nodeRegistration"]["kubeletExtraArgs"], path);
        }
        "KubeletConfiguration" | "KubeProxyConfiguration" | "KubeSchedulerConfiguration" => {}
        _ => known = false,
    }
    for (_, program, field, flag) in FIELDS.iter().filter(|(of, ..)| *of == kind) {
        if !["ClusterConfiguration", "InitConfiguration"].contains(&kind) {
            host.configured.insert(*program);
        }
        // It runs there, whatever its flags say.
        host.set(*program, "", "", path);
        let place = value.pointer(&format!("/{}", field.replace('.', "/"))).unwrap_or(&Value::Null);
        texts(place).into_iter().for_each(|text| host.set(*program, flag, &text, path));
    }
    known
}

/// A scalar as text; the items of a list with commas.
fn texts(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Array(items) => Some(items.iter().filter_map(texts).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Object(_) => None,
    }
}

fn containers(host: &mut Host, spec: &Value, path: &str) -> bool {
    let mut known = false;
    for container in spec["containers"].as_array().into_iter().flatten() {
        let words: Vec<String> = ["command", "args"]
            .iter()
            .flat_map(|of| container[*of].as_array().into_iter().flatten())
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect();
        let named = words.first().and_then(|word| Program::of(word));
        let Some(program) = named.or_else(|| Program::of(container["name"].as_str()?)) else { continue };
        known = true;
        program_words(host, program, &words, path);
        for variable in container["env"].as_array().into_iter().flatten() {
            let (Some(name), Some(value)) = (variable["name"].as_str(), variable["value"].as_str()) else {
                continue;
            };
            match name.strip_prefix("ETCD_").filter(|_| program == Program::Etcd) {
                Some(flag) => host.set(program, &flag.to_ascii_lowercase().replace('_', "-"), value, path),
                None => host.set(program, name, value, path),
            }
        }
    }
    known
}

/// kubeadm's configuration of a cluster.
fn cluster(host: &mut Host, value: &Value, path: &str) {
    for (part, program) in [
        ("apiServer", Program::ApiServer),
        ("controllerManager", Program::ControllerManager),
        ("scheduler", Program::Scheduler),
    ] {
        host.set(program, "", "", path);
        extra(host, program, &value[part]["extraArgs"], path);
    }
    if let Some(names) = texts(&value["apiServer"]["certSANs"]) {
        host.set(Program::ApiServer, "cert-sans", &names, path);
    }
    match &value["etcd"]["external"]["endpoints"] {
        Value::Array(_) => {
            let servers = texts(&value["etcd"]["external"]["endpoints"]).unwrap_or_default();
            host.set(Program::ApiServer, "etcd-servers", &servers, path);
        }
        _ => {
            host.set(Program::Etcd, "", "", path);
            extra(host, Program::Etcd, &value["etcd"]["local"]["extraArgs"], path);
        }
    }
}

/// kubeadm's additional flags: a map, and from v1beta4 on a list of names and values.
fn extra(host: &mut Host, program: Program, value: &Value, path: &str) {
    for (name, value) in value.as_object().into_iter().flatten() {
        texts(value).into_iter().for_each(|text| host.set(program, name, &text, path));
    }
    for each in value.as_array().into_iter().flatten() {
        let (Some(name), Some(value)) = (each["name"].as_str(), texts(&each["value"])) else { continue };
        host.set(program, name, &value, path);
    }
}

/// What k3s writes about itself on its Node.
fn node(host: &mut Host, value: &Value, path: &str) -> bool {
    let Some(text) = value["metadata"]["annotations"]["k3s.io/node-args"].as_str() else { return false };
    let Ok(Value::Array(words)) = values::from_json(text.as_bytes()) else { return false };
    let words: Vec<String> = words.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    program_words(host, Program::K3s, &words, path);
    true
}

/// k3s' own configuration, which holds the flags of all programs in it, with k3s' defaults for them.
pub(super) fn k3s(host: &mut Host, map: &Map<String, Value>, is_agent: bool, path: &str) {
    host.set(Program::K3s, "", if is_agent { "agent" } else { "server" }, path);
    for (key, value) in map {
        let program = match key.trim_end_matches("-arg") {
            "etcd" => Some(Program::Etcd),
            "kube-apiserver" => Some(Program::ApiServer),
            "kube-controller-manager" => Some(Program::ControllerManager),
            "kube-scheduler" => Some(Program::Scheduler),
            "kubelet" => Some(Program::Kubelet),
            "kube-proxy" => Some(Program::KubeProxy),
            _ => None,
        };
        match program.filter(|_| key.ends_with("-arg")) {
            Some(program) => {
                let all = match value {
                    Value::Array(items) => items.iter().filter_map(texts).collect(),
                    other => Vec::from_iter(texts(other)),
                };
                for (name, value) in
                    all.iter().filter_map(|text| text.trim_start_matches('-').split_once('='))
                {
                    host.set(program, name, value, path);
                }
            }
            None => {
                let text = texts(value).unwrap_or_default();
                if key == "token" || key == "agent-token" {
                    host.passwords.push((path.to_owned(), 0, "the token by which hosts join"));
                } else if key == "datastore-endpoint" {
                    if text
                        .split_once("://")
                        .is_some_and(|(_, rest)| rest.split('@').count() > 1 && rest.contains(':'))
                    {
                        host.passwords.push((path.to_owned(), 0, "the datastore's user"));
                    }
                    host.set(Program::K3s, key, "external", path);
                } else {
                    host.set(Program::K3s, key, &text, path);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(text: &str) -> Host {
        let mut host = Host::default();
        read(&File { path: "f.yaml".into(), text: text.into() }, &mut host);
        host
    }

    #[test]
    fn static_pods_tell_their_command_lines() {
        let pod = "kind: Pod\nspec:\n  containers:\n  - name: kube-apiserver\n    command: [kube-apiserver, --etcd-servers=https://127.0.0.1:2379]\n\
            \x20   env: [{name: HTTP2_PING_TIMEOUT_SECONDS, value: '3'}]\n";
        let host = known(pod);
        assert_eq!(host.value(Program::ApiServer, "etcd-servers"), Some("https://127.0.0.1:2379"));
        assert_eq!(host.value(Program::ApiServer, "HTTP2_PING_TIMEOUT_SECONDS"), Some("3"));
    }

    #[test]
    fn kubeadm_in_both_of_its_forms_and_within_a_config_map() {
        let old = "kind: ClusterConfiguration\ncontrolPlaneEndpoint: 10.0.0.100:8443\netcd: {local: {extraArgs: {election-timeout: '500'}}}\n\
            controllerManager: {extraArgs: {node-monitor-grace-period: 16s}}\n";
        let new = "kind: ClusterConfiguration\ncontrollerManager: {extraArgs: [{name: node-monitor-grace-period, value: 16s}]}\n";
        let quoted: String = old.lines().map(|line| format!("    {line}\n")).collect();
        let map = format!("kind: ConfigMap\ndata:\n  ClusterConfiguration: |\n{quoted}  other: x\n");
        for text in [old, new, &map] {
            let host = known(text);
            assert_eq!(
                host.value(Program::ControllerManager, "node-monitor-grace-period"),
                Some("16s"),
                "{text}"
            );
            assert!(host.unknown.is_empty(), "{:?}", host.unknown);
        }
        assert_eq!(known(old).value(Program::Etcd, "election-timeout"), Some("500"));
        assert_eq!(known(old).value(Program::ApiServer, "control-plane-endpoint"), Some("10.0.0.100:8443"));
    }

    #[test]
    fn k3s_holds_the_flags_of_all_programs_and_its_secrets_are_not_kept() {
        let host = known(
            "cluster-init: true\ntoken: hush\ntls-san: [10.0.0.100]\nkube-controller-manager-arg: node-monitor-grace-period=20s\n\
             etcd-arg: [--heartbeat-interval=50, election-timeout=500]\ndatastore-endpoint: postgres://u:hush@db/k\n",
        );
        assert_eq!(host.value(Program::ControllerManager, "node-monitor-grace-period"), Some("20s"));
        assert_eq!(host.value(Program::Etcd, "heartbeat-interval"), Some("50"));
        assert_eq!(host.passwords.len(), 2);
        assert!(!format!("{host:?}").contains("hush"));
        let node = r#"{"kind": "Node", "metadata": {"annotations": {"k3s.io/node-args": "[\"server\",\"--tls-san\",\"a\",\"--tls-san\",\"b\"]"}}}"#;
        assert_eq!(known(node).value(Program::K3s, "tls-san"), Some("a,b"));
    }

    #[test]
    fn a_kubelets_file_stands_under_its_flags() {
        let host =
            known("kind: KubeletConfiguration\nnodeStatusUpdateFrequency: 1s\nnodeLeaseDurationSeconds: 4\n");
        assert_eq!(host.value(Program::Kubelet, "node-lease-duration-seconds"), Some("4"));
    }
}
