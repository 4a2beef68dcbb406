//! What a running cluster's API says about its own configuration.

use serde_json::Value;

use crate::own::Own;
use crate::read::hosts;
use crate::report::{of_hosts, of_own};
use crate::{File, Report};

/// What an API server answered; null where it wouldn't.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// `/version`.
    pub version: Value,
    /// All Nodes.
    pub nodes: Value,
    /// The pods of `kube-system`.
    pub pods: Value,
    /// The ConfigMaps of `kube-system`: kubeadm's, the kubelets', kube-proxy's.
    pub config_maps: Value,
}

/// The label of hosts that are part of the control plane.
const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";

/// Predicts from what the API of a running cluster says. What it can't say (proxies, keepalived, certificates) is named.
pub fn of_cluster(answers: &Answers) -> Report {
    if answers.version["gitVersion"].as_str().is_some_and(|version| version.contains("+holdfast-")) {
        return of_holdfast(answers);
    }
    let mut report = of_hosts(hosts(&files(answers), &[]));
    report.assumed.push(
        "the API doesn't say how it is reached: give the files of HAProxy or nginx, keepalived, sysctl and the API servers' certificates, \
         of each host in a folder of its own, together with what is here (`kubectl get pods,configmaps -n kube-system -o yaml`)"
            .into(),
    );
    if report.kind == crate::Kind::Unknown {
        report.assumed.push(
            "the control plane doesn't run as pods: give its units and command lines as files, of each host in a folder of its own".into(),
        );
    }
    report
}

fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn of_holdfast(answers: &Answers) -> Report {
    let all = items(&answers.nodes);
    let members = all.iter().filter(|node| node["metadata"]["labels"].get(CONTROL_PLANE).is_some()).count();
    let members = if members == 0 { all.len() } else { members };
    let own = Own { timeouts: config::Timeouts::default(), members, on_etcd: false };
    let mut report = of_own(&own, crate::check::of_members(members));
    report.hosts = all.iter().map(|node| name(node).to_owned()).collect();
    report.assumed.push(
        "Holdfast's API doesn't tell timeouts, nor the store: these are the defaults; for certainty give each host's configuration, the file \
         of `holdfast host --config FILE` (of `up`: DIR/n1/config.json and so on)"
            .into(),
    );
    report
}

/// Each node's own pods and Node in a folder of its own, and what is about all of them above.
fn files(answers: &Answers) -> Vec<File> {
    let mut files = Vec::new();
    let mut add = |path: String, object: &Value, kind: &str| {
        let mut object = object.clone();
        // Items of a list don't say what they are.
        object["kind"] = kind.into();
        files.push(File { path, text: object.to_string() });
    };
    for pod in items(&answers.pods) {
        // kubelets show their static pods with this annotation: only these are a host's own.
        let is_own = pod["metadata"]["annotations"].get("kubernetes.io/config.mirror").is_some();
        if let Some(node) = pod["spec"]["nodeName"].as_str().filter(|_| is_own) {
            add(format!("cluster/{node}/{}.json", name(pod)), pod, "Pod");
        }
    }
    for node in items(&answers.nodes) {
        if node["metadata"]["annotations"].get("k3s.io/node-args").is_some() {
            add(format!("cluster/{}/node.json", name(node)), node, "Node");
        }
    }
    for map in items(&answers.config_maps) {
        if ["kubeadm-config", "kubelet-config", "kube-proxy"].contains(&name(map)) {
            add(format!("cluster/{}.json", name(map)), map, "ConfigMap");
        }
    }
    files
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Kind;

    #[test]
    fn a_cluster_of_kubeadm_tells_its_command_lines_by_its_static_pods() {
        let pod = |node: &str, program: &str, flag: &str| {
            json!({"metadata": {"name": format!("{program}-{node}"), "annotations": {"kubernetes.io/config.mirror": "x"}},
                "spec": {"nodeName": node, "containers": [{"name": program, "command": [program, flag]}]}})
        };
        let members = ["n1=https://10.0.0.1:2380", "n2=https://10.0.0.2:2380", "n3=https://10.0.0.3:2380"];
        let mut pods = Vec::new();
        for (place, node) in ["n1", "n2", "n3"].into_iter().enumerate() {
            // Each names those that were there when it joined, and itself.
            pods.push(pod(node, "etcd", &format!("--initial-cluster={}", members[..=place].join(","))));
            pods.push(pod(node, "kube-apiserver", "--default-unreachable-toleration-seconds=30"));
        }
        let kubelet = "kind: KubeletConfiguration\nnodeLeaseDurationSeconds: 20\n";
        let maps = [
            json!({"metadata": {"name": "kubelet-config"}, "data": {"kubelet": kubelet}}),
            json!({"metadata": {"name": "others"}, "data": {"x": "--a=b"}}),
        ];
        let answers = Answers {
            pods: json!({"items": pods}),
            config_maps: json!({"items": maps}),
            ..Answers::default()
        };
        let report = of_cluster(&answers);
        assert_eq!((report.kind, report.members), (Kind::Kubernetes, 3));
        assert_eq!(report.hosts, ["n1", "n2", "n3"]);
        assert!(report.highly_available, "{:?}", report.findings);
        let phase = |name: &str| report.phases.iter().find(|phase| phase.name == name).unwrap();
        assert_eq!(phase("the lost pod is tolerated").takes.typical_ms, 30_000);
        assert!(
            phase("the node is NotReady").settings[2].contains("5.00 s"),
            "{:?}",
            phase("the node is NotReady")
        );
        assert!(
            report.assumed.iter().any(|told| told.contains("keepalived, sysctl")),
            "{:?}",
            report.assumed
        );
    }

    #[test]
    fn k3s_tells_it_on_its_nodes() {
        let node = |name: &str| {
            let words = r#"["server","--cluster-init","--etcd-arg","heartbeat-interval=100","--etcd-arg","election-timeout=1000"]"#;
            json!({"metadata": {"name": name, "annotations": {"k3s.io/node-args": words}}})
        };
        let answers =
            Answers { nodes: json!({"items": [node("a"), node("b"), node("c")]}), ..Answers::default() };
        let report = of_cluster(&answers);
        assert_eq!((report.kind, report.members), (Kind::K3s, 3));
        assert!(report.phases[0].settings[0].contains("1.00 s"), "{:?}", report.phases[0]);
    }

    #[test]
    fn holdfast_is_known_by_its_version() {
        let version = json!({"gitVersion": "v1.36.2+holdfast-0.1.0"});
        let nodes = |count: usize| json!({"items": vec![json!({"metadata": {"name": "n"}}); count]});
        let report = of_cluster(&Answers { version: version.clone(), nodes: nodes(3), ..Answers::default() });
        assert_eq!((report.kind, report.members, report.highly_available), (Kind::Holdfast, 3, true));
        assert!(report.assumed[0].contains("config.json"), "{:?}", report.assumed);
        let report = of_cluster(&Answers { version, nodes: nodes(2), ..Answers::default() });
        assert!(!report.highly_available && report.findings[0].what.contains("two members"));
    }

    #[test]
    fn what_says_nothing_is_said_to_say_nothing() {
        let report = of_cluster(&Answers::default());
        assert_eq!((report.kind, report.highly_available), (Kind::Unknown, false));
        assert!(report.to_text().contains("as files"), "{}", report.to_text());
    }
}
