//! `kubectl` as people use it, where it is installed. What it makes out of flags (`create configmap`) goes in as
//! protobuf, what comes from a manifest as JSON.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::house::House;
use crate::tls::Authority;

const DEPLOYMENT: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      runtimeClassName: host
      containers:
      - {name: web, image: 'web:1', ports: [{containerPort: 80, name: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
";

const OTHERS: &str = r"
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: front}
spec:
  rules:
  - host: a.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: quiet}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 80}]}]}
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: disk}
provisioner: example.com/disk
---
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {name: paper}
spec:
  signerName: example.com/signer
  usages: [client auth]
  request: LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
";

const CONFIG_MAP: &str = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}"#;

struct Kubectl<'a> {
    folder: &'a Path,
}

impl Kubectl<'_> {
    /// Runs it; the answer is whether it was content, and all that it said.
    async fn run(&self, line: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(self.folder.join("kubeconfig"))
            .arg("--cache-dir")
            .arg(self.folder.join("cache"))
            .args(line.split(' '))
            .env("HOME", self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
        let output = child.wait_with_output().await.unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }
}

fn kubeconfig(address: std::net::SocketAddr, authority: &Authority) -> String {
    let data = |pem: &str| STANDARD.encode(pem);
    let (certificate, key) = authority.issue_pem("kubernetes-admin", "system:masters");
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
         clusters: [{{name: c, cluster: {{server: 'https://{address}', certificate-authority-data: {}}}}}]\n\
         users: [{{name: u, user: {{client-certificate-data: {}, client-key-data: {}}}}}]\n",
        data(&authority.pem()),
        data(&certificate),
        data(&key),
    )
}

/// Runs lines, each with its input, against a fresh server; each must say what is expected of it.
async fn expect(lines: &[(&str, &str, &str)]) {
    if !testing::has("kubectl") {
        return;
    }
    let authority = Authority::new();
    let house = House::new().await;
    let tls = Arc::new(authority.server_config(false));
    let listening = house.server.listen((Ipv4Addr::LOCALHOST, 0).into(), tls).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig(listening.address(), &authority)).unwrap();
    let kubectl = Kubectl { folder: folder.path() };
    for (line, input, expected) in lines {
        let mut said = kubectl.run(line, input).await.1;
        // On a machine that does much else the ten seconds that it gives a server can be too few.
        while said.contains("TLS handshake timeout") {
            said = kubectl.run(line, input).await.1;
        }
        assert!(said.contains(expected), "kubectl {line}: {said}");
    }
}

#[tokio::test]
async fn kubectl_works() {
    let changed = DEPLOYMENT.replace("web:1", "web:2");
    let misspelled = DEPLOYMENT.replace("replicas", "replicass");
    expect(&[
        ("apply -f -", DEPLOYMENT, "deployment.apps/web created\nservice/web created"),
        ("apply -f -", DEPLOYMENT, "deployment.apps/web unchanged\nservice/web unchanged"),
        ("diff -f -", DEPLOYMENT, ""),
        ("diff -f -", &changed, "web:2"),
        ("apply -f -", &changed, "deployment.apps/web configured"),
        ("apply -f -", &misspelled, "unknown field \"spec.replicass\""),
        ("get deployments", "", "web    0/3     0            0"),
        ("get deploy,svc -o wide", "", "service/web"),
        ("get deploy web -o yaml", "", "image: web:2"),
        ("get all -A", "", "service/kubernetes"),
        ("get namespaces", "", "kube-node-lease   Active"),
        ("scale deployment web --replicas=5", "", "deployment.apps/web scaled"),
        ("get deploy web -o jsonpath={.spec.replicas}", "", "5"),
        ("patch deploy web -p {\"spec\":{\"paused\":true}}", "", "deployment.apps/web patched"),
        ("label deploy web tier=front", "", "deployment.apps/web labeled"),
        ("annotate svc web note=x", "", "service/web annotated"),
        ("get deploy -l tier=front -o name", "", "deployment.apps/web"),
        ("describe deploy web", "", "Replicas:"),
        ("describe svc web", "", "Port:"),
        ("set image deploy/web web=web:3", "", "deployment.apps/web image updated"),
        ("explain deployment.spec.strategy", "", "rollingUpdate"),
        ("explain deployment.spec.strategy --output=plaintext-openapiv2", "", "rollingUpdate\t<Object>"),
        (
            "explain pod.spec.containers.resources --output=plaintext-openapiv2",
            "",
            "limits\t<map[string]string>",
        ),
        ("api-resources", "", "deployments"),
        ("api-versions", "", "apps/v1"),
        ("version", "", "Server Version: v1.36.2+holdfast"),
        ("run p --image=i --restart=Never", "", "pod/p created"),
        ("get pods", "", "p      0/1     Pending"),
        ("wait --for=jsonpath={.status.phase}=Pending pod/p --timeout=10s", "", "pod/p condition met"),
        ("logs p", "", ""),
        ("get events", "", "No resources found"),
        ("create -f -", CONFIG_MAP, "configmap/c created"),
        ("get configmaps --watch --output-watch-events --request-timeout=1s", "", "ADDED"),
        ("create namespace team", "", "namespace/team created"),
        ("create configmap flags --from-literal=a=b", "", "configmap/flags created"),
        ("get configmap flags -o jsonpath={.data.a}", "", "b"),
        ("create secret generic hidden --from-literal=k=v", "", "secret/hidden created"),
        ("get secret hidden -o jsonpath={.data.k}", "", "dg=="),
        ("create serviceaccount robot", "", "serviceaccount/robot created"),
        ("create deployment idle --image=i --replicas=0 --port=80", "", "deployment.apps/idle created"),
        ("get deploy idle -o jsonpath={.spec.replicas},{.spec.strategy.type}", "", "0,RollingUpdate"),
        ("expose deployment idle --port=80 --target-port=web", "", "service/idle exposed"),
        ("create service nodeport np --tcp=80:8080", "", "service/np created"),
        ("auth can-i list pods", "", "yes"),
        ("create deployment idle --image=i", "", "already exists"),
        (
            "delete deploy,svc,cm,secret,sa idle np flags hidden robot --ignore-not-found",
            "",
            "\"robot\" deleted",
        ),
        ("delete pod p", "", "pod \"p\" deleted"),
        ("delete deploy,svc web", "", "deleted"),
        ("delete configmaps --all", "", "configmap \"c\" deleted"),
        ("get cats", "", "the server doesn't have a resource type \"cats\""),
        ("get pod none", "", "pods \"none\" not found"),
    ])
    .await;
}

/// As upstream's conformance tests ask (`crd_publish_openapi.go`).
#[tokio::test]
async fn kubectl_explains_custom_resources() {
    let foos = r"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: foos, kind: Foo}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        description: Foo CRD for Testing
        type: object
        properties:
          spec:
            type: object
            description: Specification of Foo
            properties:
              template: {type: object, x-kubernetes-embedded-resource: true, properties: {spec: {type: object}}}
              labels: {type: object, additionalProperties: {type: string}}
              port: {x-kubernetes-int-or-string: true}
              bars:
                description: List of Bars and their specs.
                type: array
                items:
                  type: object
                  required: [name]
                  properties:
                    name: {description: Name of Bar., type: string}
                    age: {description: Age of Bar., type: string}
                    feeling: {description: Whether Bar is feeling great., type: string, enum: [Great, Down]}
                    bazs: {description: List of Bazs., type: array, items: {type: string}}
";
    let empties = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: empties.example.com}
spec:
  group: example.com
  scope: Cluster
  names: {plural: empties, kind: Empty}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";
    expect(&[
        ("create -f -", foos, "created"),
        ("create -f -", empties, "created"),
        (
            "wait --for=condition=Established crd/foos.example.com crd/empties.example.com",
            "",
            "condition met",
        ),
        ("explain foos", "", "DESCRIPTION:\n    Foo CRD for Testing"),
        ("explain foos", "", "  apiVersion\t<string>\n    APIVersion defines the versioned schema"),
        ("explain foos", "", "  spec\t<Object>\n    Specification of Foo"),
        ("explain foos", "", "  metadata\t<ObjectMeta>\n    Standard object's metadata."),
        ("explain foos.metadata", "", "Standard object's metadata"),
        ("explain foos.metadata", "", "  creationTimestamp\t<string>\n    CreationTimestamp is a timestamp"),
        ("explain foos.spec", "", "  bars\t<[]Object>\n    List of Bars and their specs."),
        ("explain foos.spec", "", "  labels\t<map[string]string>"),
        ("explain foos.spec.template", "", "  kind\t<string> -required-\n    kind is a string value"),
        ("explain foos.spec.bars", "", "FIELD: bars <[]Object>"),
        ("explain foos.spec.bars", "", "  name\t<string> -required-\n    Name of Bar."),
        ("explain foos.spec.bars", "", "  bazs\t<[]string>\n    List of Bazs."),
        ("explain foos.spec.bars", "", "enum: "),
        ("explain foos.spec.bars2", "", "field \"bars2\" does not exist"),
        ("explain empties", "", "DESCRIPTION:\n    <empty>"),
        ("explain foos --output=plaintext-openapiv2", "", "Foo CRD for Testing"),
        ("explain empties --output=plaintext-openapiv2", "", "<empty>"),
        (
            "explain pod.spec.containers",
            "",
            "A single application container that you want to run within a pod.",
        ),
        (
            "explain pod.spec.containers",
            "",
            "  name\t<string> -required-\n    Name of the container specified as a DNS_LABEL.",
        ),
    ])
    .await;
}

#[tokio::test]
async fn kubectl_applies_on_the_server() {
    let changed = DEPLOYMENT.replace("web:1", "web:2");
    let fewer = DEPLOYMENT.replace("  replicas: 3\n", "");
    let misspelled = DEPLOYMENT.replace("replicas", "replicass");
    let jsonpath = "get deploy web -o jsonpath={.metadata.managedFields[*].manager} --show-managed-fields";
    expect(&[
        ("diff --server-side -f -", DEPLOYMENT, "+  replicas: 3"),
        (
            "apply --server-side -f -",
            DEPLOYMENT,
            "deployment.apps/web serverside-applied\nservice/web serverside-applied",
        ),
        ("apply --server-side -f -", DEPLOYMENT, "deployment.apps/web serverside-applied"),
        (jsonpath, "", "kubectl"),
        ("get deploy web -o yaml --show-managed-fields", "", "operation: Apply"),
        ("diff --server-side -f -", &changed, "web:2"),
        ("apply --server-side --dry-run=server -f -", &changed, "serverside-applied (server dry run)"),
        ("get deploy web -o yaml", "", "image: web:1"),
        ("apply --server-side -f -", &misspelled, ".spec.replicass: field not declared in schema"),
        ("scale deployment web --replicas=5", "", "scaled"),
        ("apply --server-side -f -", DEPLOYMENT, "conflict with \"kubectl\" with subresource \"scale\""),
        ("apply --server-side -f -", &fewer, "deployment.apps/web serverside-applied"),
        ("get deploy web -o jsonpath={.spec.replicas}", "", "5"),
        ("apply --server-side --force-conflicts -f -", DEPLOYMENT, "serverside-applied"),
        ("get deploy web -o jsonpath={.spec.replicas}", "", "3"),
        ("apply --server-side --field-manager=ci -f -", &changed, "Apply failed with 1 conflict"),
        ("delete deploy,svc web", "", "deleted"),
        // What kubectl applied by itself becomes the server's to merge, and may change.
        ("apply -f -", DEPLOYMENT, "deployment.apps/web created"),
        (jsonpath, "", "kubectl-client-side-apply"),
        ("apply --server-side -f -", &changed, "deployment.apps/web serverside-applied"),
        ("get deploy web -o yaml", "", "image: web:2"),
        ("apply --server-side -f -", &fewer, "deployment.apps/web serverside-applied"),
        ("get deploy web -o jsonpath={.spec.replicas}", "", "1"),
        // And back.
        ("apply -f -", &changed, "deployment.apps/web configured"),
        ("get deploy web -o jsonpath={.spec.replicas}", "", "3"),
    ])
    .await;
}

#[tokio::test]
async fn kubectl_knows_the_other_kinds_and_who_may_what() {
    expect(&[
        ("apply -f -", OTHERS, "ingress.networking.k8s.io/front created"),
        ("apply -f -", OTHERS, "customresourcedefinition.apiextensions.k8s.io/widgets.example.com unchanged"),
        ("get ing,netpol,sc,pc", "", "front   <none>   a.example.com             80"),
        ("describe ing front", "", "a.example.com"),
        ("describe netpol quiet", "", "Allowing ingress traffic"),
        ("get crd", "", "widgets.example.com"),
        ("get apiservices", "", "v1.apps"),
        ("get flowschemas,prioritylevelconfigurations", "", "workload-low"),
        ("get clusterroles", "", "cluster-admin"),
        ("get clusterrolebindings -o wide", "", "system:masters"),
        ("explain networkpolicy.spec.ingress", "", "ports"),
        ("explain crd.spec.versions", "", "served"),
        (
            "create role reader --verb=get,list --resource=configmaps",
            "",
            "role.rbac.authorization.k8s.io/reader created",
        ),
        (
            "create rolebinding jane --role=reader --user=jane",
            "",
            "rolebinding.rbac.authorization.k8s.io/jane created",
        ),
        (
            "create clusterrole watcher --verb=watch --resource=nodes",
            "",
            "clusterrole.rbac.authorization.k8s.io/watcher created",
        ),
        (
            "create clusterrolebinding bob --clusterrole=watcher --user=bob",
            "",
            "clusterrolebinding.rbac.authorization.k8s.io/bob created",
        ),
        ("describe rolebinding jane", "", "reader"),
        ("auth can-i list configmaps --as=jane", "", "yes"),
        ("auth can-i delete configmaps --as=jane", "", "no"),
        ("auth can-i watch nodes --as=bob", "", "yes"),
        ("auth can-i --list --as=jane", "", "configmaps"),
        ("auth whoami", "", "kubernetes-admin"),
        ("get configmaps --as=jane", "", "No resources found"),
        ("get secrets --as=jane", "", "secrets is forbidden: User \"jane\" cannot list resource \"secrets\""),
        ("create priorityclass high --value=100", "", "priorityclass.scheduling.k8s.io/high created"),
        ("delete priorityclass system-node-critical", "", "is forbidden"),
        ("create ingress flags --rule=b.example.com/*=web:80", "", "ingress.networking.k8s.io/flags created"),
        ("certificate approve paper", "", "certificatesigningrequest.certificates.k8s.io/paper approved"),
        ("get csr", "", "Approved"),
        ("delete ing,netpol,sc --all", "", "\"front\" deleted"),
    ])
    .await;
}

#[tokio::test]
async fn kubectl_meets_quotas_levels_and_tokens() {
    expect(&[
        ("create token default", "", "eyJ"),
        ("create token default --duration=1h --audience=vault", "", "eyJ"),
        ("create token nobody", "", "\"nobody\" not found"),
        ("create serviceaccount robot", "", "serviceaccount/robot created"),
        ("create quota small --hard=pods=1,count/configmaps=2", "", "resourcequota/small created"),
        ("run one --image=i", "", "pod/one created"),
        ("describe quota small", "", "pods              1     1"),
        ("run two --image=i", "", "exceeded quota: small, requested: pods=1, used: pods=1, limited: pods=1"),
        ("delete quota small", "", "deleted"),
        ("label ns default pod-security.kubernetes.io/enforce=baseline", "", "namespace/default labeled"),
        (
            "run bad --image=i --privileged",
            "",
            "violates PodSecurity \"baseline:latest\": privileged (container",
        ),
        ("label ns default pod-security.kubernetes.io/warn=restricted", "", "namespace/default labeled"),
        ("create deployment web --image=i", "", "Warning: would violate PodSecurity \"restricted:latest\""),
        ("get --raw /openid/v1/jwks", "", "ES256"),
    ])
    .await;
}
