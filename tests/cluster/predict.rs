//! `holdfast predict --live` against an API that only says what kubeadm's clusters do: the whole way from the kubeconfig to the exit code.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::HOLDFAST;

const PODS: &str = "/api/v1/namespaces/kube-system/pods";
const MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";

/// What the API answers at a path: a status and an object.
type Answer = fn(&str) -> (u16, Value);

/// Runs `predict --live` against an API that answers so: what it said, and what it asked for.
fn predict(answer: Answer) -> (Output, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("config");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": format!("http://{address}")}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
        "users": [{"name": "x", "user": {}}],
    });
    std::fs::write(&kubeconfig, text.to_string()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut asked = Vec::new();
            loop {
                let (connection, _) = listener.accept().unwrap();
                if over.load(Ordering::SeqCst) {
                    return asked;
                }
                asked.extend(serve(&connection, answer));
            }
        });
        let output = Command::new(HOLDFAST)
            .args(["predict", "--live", "-o", "json", "--kubeconfig"])
            .arg(&kubeconfig)
            .output();
        over.store(true, Ordering::SeqCst);
        // Wakes the one that accepts.
        drop(TcpStream::connect(address));
        (output.unwrap(), asked.join().unwrap())
    })
}

/// Answers the one request of a connection, and says which it was.
fn serve(mut connection: &TcpStream, answer: Answer) -> Option<String> {
    let mut lines =
        BufReader::new(connection).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let request = lines.next()?;
    lines.for_each(drop);
    let (status, body) = answer(request.split(' ').nth(1)?);
    let body = body.to_string();
    write!(
        connection,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    Some(request)
}

/// What kubeadm's cluster of so many control planes answers.
fn kubeadm(path: &str, members: usize) -> (u16, Value) {
    let hosts = ["n1", "n2", "n3"];
    let peers: Vec<String> =
        (1..=members).map(|place| format!("n{place}=https://10.0.0.{place}:2380")).collect();
    let pod = |host: &str, program: &str, flag: String| {
        json!({"metadata": {"name": format!("{program}-{host}"), "annotations": {"kubernetes.io/config.mirror": "x"}},
            "spec": {"nodeName": host, "containers": [{"name": program, "command": [program, flag]}]}})
    };
    let pods = hosts[..members].iter().flat_map(|host| {
        [
            pod(host, "etcd", format!("--initial-cluster={}", peers.join(","))),
            pod(host, "kube-apiserver", "--default-unreachable-toleration-seconds=30".to_owned()),
        ]
    });
    let items: Vec<Value> = match path {
        "/version" => return (200, json!({"gitVersion": "v1.36.2"})),
        PODS => pods.collect(),
        MAPS => vec![json!({"metadata": {"name": "kubelet-config"},
            "data": {"kubelet": "kind: KubeletConfiguration\nnodeLeaseDurationSeconds: 20\n"}})],
        _ => hosts[..members].iter().map(|host| json!({"metadata": {"name": host}})).collect(),
    };
    (200, json!({"kind": "List", "items": items}))
}

fn said(output: &Output) -> (Value, String) {
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {told}")), told)
}

#[test]
fn a_running_cluster_is_asked_and_its_settings_are_predicted_from() {
    let (output, asked) = predict(|path| kubeadm(path, 3));
    let (report, told) = said(&output);
    assert_eq!((output.status.code(), told.as_str()), (Some(0), ""), "{report:#}");
    assert_eq!(report["members"], 3, "{report:#}");
    assert_eq!(report["hosts"], json!(["n1", "n2", "n3"]));
    let tolerated = report["phases"].as_array().unwrap().iter();
    let tolerated: Vec<_> = tolerated.filter(|phase| phase["name"] == "the lost pod is tolerated").collect();
    assert_eq!(tolerated.len(), 1, "{report:#}");
    assert_eq!(tolerated[0]["takes"]["typical_ms"], 30_000, "{report:#}");
    // Asked once each, and nothing but read.
    let paths = ["/version", "/api/v1/nodes", PODS, MAPS];
    assert_eq!(asked, paths.map(|path| format!("GET {path} HTTP/1.1")));
}

#[test]
fn the_exit_code_tells_a_running_cluster_that_is_not_highly_available() {
    let (output, _) = predict(|path| kubeadm(path, 2));
    let (report, _) = said(&output);
    assert_eq!((output.status.code(), &report["members"]), (Some(3), &json!(2)), "{report:#}");
}

#[test]
fn what_a_user_may_not_see_is_named_and_left_out() {
    let (output, _) = predict(|path| match path {
        MAPS => (403, json!({"kind": "Status", "status": "Failure", "message": "not for you", "code": 403})),
        path => kubeadm(path, 3),
    });
    let (report, told) = said(&output);
    assert!(told.contains(&format!("{MAPS} is left out")) && told.contains("not for you"), "{told}");
    assert_eq!((output.status.code(), &report["members"]), (Some(0), &json!(3)), "{report:#}");
}

#[test]
fn what_is_no_api_gets_no_prediction() {
    let (output, asked) =
        predict(|_| (404, json!({"kind": "Status", "message": "nothing here", "code": 404})));
    assert_eq!((output.status.code(), &output.stdout[..], asked.len()), (Some(1), &b""[..], 1));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("nothing here"), "{told}");
}
