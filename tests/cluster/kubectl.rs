//! `kubectl` against `up`: the commands that people type.

use std::io::Read;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::harness::{Cluster, HOLDFAST, PATIENCE, text};

const MANIFEST: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: host
      containers:
      - name: web
        command: ["/bin/sh", "-c", "echo up and running; exec holdfast web"]
        env:
        - name: POD_IP
          valueFrom: {fieldRef: {fieldPath: status.podIP}}
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
"#;

const OTHERS: &str = r#"apiVersion: v1
kind: Namespace
metadata: {name: other}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: other}
data: {a: b}
---
apiVersion: v1
kind: Secret
metadata: {name: password, namespace: other}
stringData: {p: q}
"#;

/// `kubectl` (or a program like it) with a cluster's kubeconfig.
pub struct Kubectl<'a>(pub &'a Cluster, pub &'a str);

/// Whether `kubectl` is there; says so if it isn't.
pub fn is_installed() -> bool {
    testing::has("kubectl")
}

impl Kubectl<'_> {
    /// Runs it; it must succeed and print each of `words`.
    pub fn says(&self, args: &str, words: &[&str]) -> String {
        let output = self.run(args);
        let said = text(&output);
        assert!(output.status.success(), "{} {args} failed: {said}", self.1);
        for word in words {
            assert!(said.contains(word), "{} {args} doesn't say {word:?}: {said}", self.1);
        }
        said
    }

    /// Applies manifests; it must succeed and print each of `words`.
    pub fn applies(&self, manifests: &str, words: &[&str]) {
        let file = self.0.dir().join("applied.yaml");
        std::fs::write(&file, manifests).unwrap();
        self.says(&format!("apply -f {}", file.display()), words);
    }

    /// Runs it; it must fail and print each of `words`.
    pub fn fails(&self, args: &str, words: &[&str]) {
        let output = self.run(args);
        let said = text(&output);
        assert!(!output.status.success(), "{} {args} succeeded: {said}", self.1);
        for word in words {
            assert!(said.contains(word), "{} {args} doesn't say {word:?}: {said}", self.1);
        }
    }

    /// Runs it until it prints `word`.
    pub fn says_soon(&self, args: &str, word: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let said = text(&self.run(args));
            if said.contains(word) {
                return said;
            }
            assert!(Instant::now() < end, "{} {args} doesn't come to say {word:?}: {said}", self.1);
        }
    }

    fn run(&self, args: &str) -> Output {
        self.0.run(self.1, &args.split_whitespace().collect::<Vec<_>>())
    }
}

#[tokio::test]
async fn kubectl_does_what_it_does_elsewhere() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let file = cluster.dir().join("web.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    let file = file.to_str().unwrap();

    kubectl.says("version", &["Server Version: v1.36"]);
    kubectl.says("get nodes", &["NAME", "STATUS", "ROLES", "VERSION", "n1", "n3", "Ready", "control-plane"]);
    kubectl.says("get nodes -o wide", &["INTERNAL-IP", "KERNEL-VERSION"]);
    kubectl.says("api-resources", &["deployments", "deploy", "apps/v1", "runtimeclasses"]);

    kubectl.says(&format!("apply -f {file}"), &["deployment.apps/web created", "service/web created"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.says("wait --for=condition=Available deployment/web --timeout=60s", &["condition met"]);
    kubectl.says(&format!("apply -f {file}"), &["deployment.apps/web unchanged", "service/web unchanged"]);
    kubectl.says("get deploy web", &["READY", "2/2"]);
    kubectl.says("get all", &["pod/web-", "service/web", "deployment.apps/web", "replicaset.apps/web-"]);
    kubectl.says("get pods -l app=web -o wide", &["1/1", "Running", "NODE"]);
    kubectl.says("get pods --field-selector status.phase=Running -o name", &["pod/web-"]);
    kubectl.says("get svc web -o jsonpath={.spec.clusterIP}", &["."]);
    kubectl.says("describe deployment web", &["StrategyType:", "RollingUpdate", "NewReplicaSet:"]);
    kubectl.says("describe pod -l app=web", &["Ready:", "True", "Runtime Class Name:  host", "Scheduled"]);
    kubectl.says("describe node n1", &["Allocatable:", "Conditions:", "web-"]);
    kubectl.says("describe service web", &["Endpoints:", ":8080"]);
    kubectl.says("explain deployment.spec.strategy", &["KIND:", "Deployment", "rollingUpdate"]);
    kubectl.says("logs deployment/web", &["up and running"]);

    // diff exits with 1 where there is a difference, and shows it.
    let changed = cluster.dir().join("changed.yaml");
    std::fs::write(&changed, MANIFEST.replace("replicas: 2", "replicas: 3")).unwrap();
    let diff = cluster.run("kubectl", &["diff", "-f", changed.to_str().unwrap()]);
    assert_eq!(diff.status.code(), Some(1), "{}", text(&diff));
    assert!(text(&diff).contains("+  replicas: 3"), "{}", text(&diff));
    let same = cluster.run("kubectl", &["diff", "-f", file]);
    assert_eq!(same.status.code(), Some(0), "{}", text(&same));

    kubectl.says("scale deployment/web --replicas=3", &["deployment.apps/web scaled"]);
    kubectl.says_soon("get deploy web", "3/3");
    kubectl.says(
        r#"patch deployment web -p {"spec":{"template":{"metadata":{"annotations":{"v":"2"}}}}}"#,
        &["patched"],
    );
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.says("rollout history deployment/web", &["1", "2"]);
    kubectl.says("rollout undo deployment/web", &["rolled back"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    let template = kubectl.says("get deployment web -o jsonpath={.spec.template.metadata}", &[]);
    assert!(!template.contains("\"v\""), "undo took the annotation away: {template}");
    kubectl.says("label deployment web tier=front", &["labeled"]);
    kubectl.says("annotate deployment web note=yes", &["annotated"]);
    kubectl.says("rollout restart deployment/web", &["restarted"]);
    kubectl.says("rollout status deployment/web --timeout=60s", &["successfully rolled out"]);
    kubectl.says(
        r#"patch svc web --type=json -p=[{"op":"add","path":"/metadata/labels","value":{"x":"y"}}]"#,
        &["patched"],
    );
    let others = cluster.dir().join("others.yaml");
    std::fs::write(&others, OTHERS).unwrap();
    kubectl.says(
        &format!("create -f {}", others.display()),
        &["namespace/other created", "secret/password created"],
    );
    kubectl.says("get cm,secret -n other", &["settings", "password", "Opaque"]);
    kubectl.says("get events", &["SuccessfulCreate"]);
    let misspelled = cluster.dir().join("misspelled.yaml");
    std::fs::write(&misspelled, MANIFEST.replace("replicas:", "replica:")).unwrap();
    let refused = cluster.run("kubectl", &["apply", "-f", misspelled.to_str().unwrap()]);
    assert!(!refused.status.success() && text(&refused).contains("spec.replica"), "{}", text(&refused));

    // A watch shows a deletion as it happens.
    let mut watch = Command::new("kubectl")
        .args(["get", "pods", "-w"])
        .env("KUBECONFIG", cluster.kubeconfig())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut seen = [0; 1];
    watch.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    kubectl
        .says(&format!("delete -f {file}"), &["deployment.apps \"web\" deleted", "service \"web\" deleted"]);
    kubectl.says_soon("get pods", "No resources found");
    watch.kill().unwrap();
    let mut shown = String::new();
    watch.stdout.take().unwrap().read_to_string(&mut shown).unwrap();
    watch.wait().unwrap();
    assert!(shown.contains("Terminating"), "{shown}");
    kubectl.says("delete namespace other", &["deleted"]);
}

/// A pod with limits.
const LIMITED: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  runtimeClassName: host
  containers:
  - name: main
    command: [sleep, "1000"]
    resources: {limits: {cpu: 200m, memory: 64Mi}}
"#;

#[tokio::test]
async fn kubectl_resizes_a_pod_in_place() {
    if !is_installed() {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    kubectl.applies(LIMITED, &["pod/limited created"]);
    kubectl.says("wait --for=condition=Ready pod/limited --timeout=60s", &["condition met"]);
    let resize = |resources: &str| {
        format!(
            r#"patch pod limited --subresource resize -p {{"spec":{{"containers":[{{"name":"main","resources":{resources}}}]}}}}"#
        )
    };
    let more = r#"{"requests":{"cpu":"300m","memory":"96Mi"},"limits":{"cpu":"300m","memory":"96Mi"}}"#;
    kubectl.says(&resize(more), &["patched"]);
    let of = |path: &str| format!("get pod limited -o jsonpath={{.status.{path}}}");
    kubectl.says_soon(&of("containerStatuses[0].resources.limits"), r#"{"cpu":"300m","memory":"96Mi"}"#);
    kubectl.says(&of("containerStatuses[0].allocatedResources"), &[r#"{"cpu":"300m","memory":"96Mi"}"#]);
    kubectl.says(&of("containerStatuses[0].restartCount"), &["0"]);
    kubectl.says_soon("get events --field-selector reason=ResizeCompleted", "Pod resize completed");
    // Not another class of service, nothing but processors and memory, and no more than a host has.
    kubectl.fails(
        &resize(r#"{"requests":{"cpu":"100m"}}"#),
        &["Pod QOS Class may not change as a result of resizing"],
    );
    let disk = r#"{"requests":{"ephemeral-storage":"1Gi"}}"#;
    kubectl.fails(&resize(disk), &["only cpu and memory resources are mutable"]);
    kubectl.says(&resize(r#"{"requests":{"cpu":"100000"},"limits":{"cpu":"100000"}}"#), &["patched"]);
    kubectl.says_soon(&of("conditions[?(@.type=='PodResizePending')].reason"), "Infeasible");
    kubectl.says(&of("containerStatuses[0].resources.limits"), &[r#"{"cpu":"300m","memory":"96Mi"}"#]);
}

#[tokio::test]
async fn the_thin_client_says_what_kubectl_says() {
    let cluster = Cluster::up().await;
    let holdfast = Kubectl(&cluster, HOLDFAST);
    let file = cluster.dir().join("web.yaml");
    std::fs::write(&file, MANIFEST).unwrap();
    let file = file.to_str().unwrap();
    holdfast.says("get nodes", &["NAME", "STATUS", "n1", "n2", "n3", "Ready"]);
    assert_eq!(holdfast.says("get nodes -o jsonpath={.items[*].metadata.name}", &[]), "n1 n2 n3");
    let ready = "get nodes n2 -o jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
    assert_eq!(holdfast.says(ready, &[]), "True");
    let sorted = holdfast.says("get nodes --no-headers --sort-by .metadata.name", &[]);
    let names: Vec<_> = sorted.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    holdfast.fails("get nodes --sort-by .nothing", &["couldn't find any field"]);
    holdfast.says(&format!("apply -f {file}"), &["deployment.apps/web created", "service/web created"]);
    holdfast.says(&format!("apply -f {file}"), &["deployment.apps/web unchanged", "service/web unchanged"]);
    holdfast.says_soon("get deploy web", "2/2");
    holdfast.says("scale --replicas=3 deployment/web", &["deployment.apps/web scaled"]);
    holdfast.says_soon("get deploy web", "3/3");
    let pods = holdfast.says("get pods -l app=web -o name", &["pod/web-"]);
    let pod = pods.lines().next().unwrap();
    holdfast.says(&format!("logs {pod}"), &["up and running"]);
    holdfast.says(&format!("describe {pod}"), &["Name:         web-", "Node Name:", "Ready"]);
    holdfast.says_soon(&format!("describe {pod}"), "Started");
    holdfast.says("describe node n1", &["Name:         n1", "Namespace:    <none>", "Conditions:"]);
    holdfast.fails("describe node n9", &["not found"]);
    holdfast.says("get pods,svc -A -o wide", &["NAMESPACE", "service/web", "pod/web-"]);
    holdfast
        .says(&format!("delete -f {file}"), &["deployment.apps \"web\" deleted", "service \"web\" deleted"]);
    holdfast.says_soon("get pods", "No resources found");
}
