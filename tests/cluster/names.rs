//! Names in pods, asked for by the C library: with what the host writes into the pod's `/etc/resolv.conf`.

use serde_json::Value;

use crate::harness::{Cluster, text, wait_for};

/// A service with an address, and one without.
const SERVICES: &str = r#"apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: db}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: dbs}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: http, port: 8080}]}
"#;

/// A pod of theirs; NAME and HOST are put in.
const SERVES: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: NAME, labels: {app: db}}
spec:
  nodeName: HOST
  hostname: NAME
  subdomain: dbs
  runtimeClassName: host
  containers:
  - name: web
    command: ["holdfast", "web"]
    env:
    - name: POD_IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    ports: [{name: http, containerPort: 8080}]
    readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
"#;

/// A pod that asks, on n1.
const ASKS: &str = r#"---
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  nodeName: n1
  runtimeClassName: host
  terminationGracePeriodSeconds: 0
  dnsConfig: {options: [{name: timeout, value: "1"}]}
  containers:
  - name: asks
    command:
    - sh
    - -c
    - |
      cat /etc/resolv.conf
      ask() { getent "$@" | tr -s ' \n' ' '; }
      while :; do
        echo "web=$(ask ahostsv4 web) api=$(ask ahostsv4 kubernetes.default.svc) all=$(ask ahostsv4 dbs)" \
          "first=$(ask ahostsv4 db-0.dbs) none=$(ask ahostsv4 none)"
        sleep 0.1
      done
"#;

/// The last whole line that the asking pod said.
fn last_line(cluster: &Cluster) -> Option<String> {
    let said = text(&cluster.holdfast(&["logs", "asks"]));
    let whole = said.rsplit_once('\n')?.0;
    Some(whole.lines().last()?.to_owned())
}

/// The first word of an answer.
fn of<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!("{name}=")).unwrap();
    // The next name follows at once where there is none.
    rest.split_whitespace()
        .next()
        .filter(|word| !rest.starts_with(' ') && !word.contains('='))
        .unwrap_or_default()
}

fn address(cluster: &Cluster, kind: &str, name: &str, pointer: &str) -> Option<String> {
    let said = cluster.holdfast(&["get", kind, name, "-o", "json"]);
    let object: Value = serde_json::from_slice(&said.stdout).ok()?;
    Some(object.pointer(pointer)?.as_str()?.to_owned())
}

#[tokio::test]
async fn a_pod_finds_services_and_pods_by_name_whichever_host_is_lost() {
    if !testing::has("getent") || !testing::has_namespaces() {
        return;
    }
    let cluster = Cluster::up().await;
    let dns = wait_for("the service of the cluster's DNS", || async {
        let said = text(&cluster.holdfast(&["get", "services", "-n", "kube-system"]));
        said.contains("53/UDP,53/TCP").then_some(said)
    })
    .await;
    assert!(dns.contains("kube-dns") && dns.contains("10.96.0.10"), "{dns}");
    let file = cluster.dir().join("names.yaml");
    let serves = |name: &str, host: &str| SERVES.replace("NAME", name).replace("HOST", host);
    let pods = [serves("db-0", "n2"), serves("db-1", "n3"), ASKS.to_owned()];
    std::fs::write(&file, format!("{SERVICES}{}", pods.concat())).unwrap();
    let applied = cluster.holdfast(&["apply", "-f", file.to_str().unwrap()]);
    assert!(applied.status.success(), "{}", text(&applied));

    let pod = |name: &'static str| address(&cluster, "pod", name, "/status/podIP");
    let (first, second) = wait_for("addresses", || async { pod("db-0").zip(pod("db-1")) }).await;
    let web = address(&cluster, "service", "web", "/spec/clusterIP").unwrap();
    let line = wait_for("both endpoints under their service's name", || async {
        last_line(&cluster).filter(|line| line.contains(&first) && line.contains(&second))
    })
    .await;
    assert_eq!((of(&line, "web"), of(&line, "api")), (&*web, "10.96.0.1"), "{line}");
    assert_eq!((of(&line, "first"), of(&line, "none")), (&*first, ""), "{line}");
    let said = text(&cluster.holdfast(&["logs", "asks"]));
    for line in [
        "search default.svc.cluster.local svc.cluster.local cluster.local",
        "nameserver 10.96.0.10",
        "options ndots:5 timeout:1",
    ] {
        assert!(said.lines().any(|known| known.starts_with(line)), "{line}: {said}");
    }

    // A host that says nothing any more, the leader or not: names go on, without what was there.
    cluster.signal_host("n2", libc::SIGSTOP);
    let line = wait_for("an answer without the silent host's endpoint", || async {
        last_line(&cluster).filter(|line| line.contains(&second) && !line.contains(&first))
    })
    .await;
    assert_eq!((of(&line, "web"), of(&line, "api"), of(&line, "first")), (&*web, "10.96.0.1", ""), "{line}");
    cluster.signal_host("n2", libc::SIGCONT);
    wait_for("its return", || async { last_line(&cluster).filter(|line| line.contains(&first)) }).await;
}
