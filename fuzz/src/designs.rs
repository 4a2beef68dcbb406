//! Files of other people's clusters: of HAProxy, keepalived, nginx, systemd and Kubernetes, as predictions are made from.

use rand::Rng;
use rand::rngs::StdRng;

use crate::corpus::Corpus;
use crate::grow::Growing;
use crate::mutate;

/// Files with the names by which they are known.
const FILES: [(&str, &str); 9] = [
    ("n1/haproxy.cfg", include_str!("../../crates/predict/tests/peers/seed/haproxy.cfg")),
    ("n1/keepalived.conf", include_str!("../../crates/predict/tests/peers/seed/keepalived.conf")),
    (
        "n1/nginx.conf",
        "stream {\n upstream a {\n  server 10.0.0.1:6443 max_fails=3 fail_timeout=1m30s;\n }\n \
         server { listen 10.0.0.100:8443; proxy_connect_timeout 1s; proxy_pass a; }\n}\n",
    ),
    ("n1/etcd.yaml", include_str!("../../crates/predict/tests/peers/seed/etcd.yaml")),
    (
        "n1/etcd.env",
        "ETCD_INITIAL_CLUSTER=\"a=http://10.0.0.1:2380\"\nETCD_ELECTION_TIMEOUT=500\nKUBELET_EXTRA_ARGS=\"--a=b\"\n",
    ),
    ("n1/kube-proxy.args", include_str!("../../crates/predict/tests/peers/seed/kube-proxy.args")),
    (
        "n1/kubelet.service",
        "[Service]\nEnvironment=\"A=b\" 'HTTP2_PING_TIMEOUT_SECONDS=3'\nExecStart=/usr/bin/kubelet \\\n --a=b \\\n --c d\n",
    ),
    (
        "n1/pods.yaml",
        "kind: List\nitems:\n- kind: Pod\n  spec: {containers: [{name: etcd, command: [etcd, --election-timeout=500]}]}\n- kind: ConfigMap\n  \
         data:\n    ClusterConfiguration: |\n      kind: ClusterConfiguration\n      controlPlaneEndpoint: a:1\n",
    ),
    (
        "n1/config.yaml",
        "cluster-init: true\ntls-san: [a]\netcd-arg: [election-timeout=500]\nkubelet-arg: node-ip=1\n",
    ),
];

/// A byte for which file it is, and its text.
pub(crate) fn make(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let which = rng.random_range(0..FILES.len());
    let mut text = FILES[which].1.as_bytes().to_vec();
    if rng.random_range(0..4) > 0 {
        let others = FILES[rng.random_range(0..FILES.len())].1.as_bytes();
        text = mutate::bytes(rng, text, others);
    }
    [&[which as u8][..], &text].concat()
}

pub(crate) fn grow(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make(rng, corpus);
    let growing = crate::grow::bytes(rng, &input[1..]);
    Box::new(move |times| [&input[..1], &growing(times)].concat())
}

/// A secret, which nobody must repeat.
const SECRET: &str = "q7Zx-geheim-K2";

/// With a statement that holds a secret, for programs that have such.
fn with_secret(path: &str, text: &str) -> String {
    let statements = match path {
        "n1/haproxy.cfg" => "userlist z\n user a insecure-password SECRET\nlisten z\n stats auth a:SECRET\n",
        "n1/keepalived.conf" => "vrrp_instance z {\n authentication {\n  auth_pass SECRET\n }\n}\n",
        "n1/nginx.conf" => "upstream z {\n server 10.0.0.9:6443 token=SECRET;\n}\n",
        _ => "",
    };
    format!("{text}\n{}", statements.replace("SECRET", SECRET))
}

/// The same file on two hosts, which are held against each other: something is said of it, no terminal gets commands, and a secret stays one.
pub(crate) fn read(input: &[u8]) {
    let Some((which, text)) = input.split_first() else { return };
    let (path, _) = FILES[usize::from(*which) % FILES.len()];
    let text = String::from_utf8_lossy(text).into_owned();
    // An open quote makes all that follows one word, a name as well.
    let text = if text.contains(['"', '\'']) { text } else { with_secret(path, &text) };
    let file = |path: String| predict::File { path, text: text.clone() };
    let report = predict::predict(&[file(path.to_owned()), file(path.replace("n1/", "n2/"))]);
    let told = report.to_text();
    assert!(!told.is_empty());
    assert!(!told.chars().any(|letter| letter.is_control() && letter != '\n'), "{told:?}");
    match report.to_json() {
        Ok(json) => assert!(!told.contains(SECRET) && !json.contains(SECRET), "a secret is repeated: {told}"),
        Err(error) => panic!("a report is JSON: {error}"),
    }
}
