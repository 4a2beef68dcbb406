//! Users who got their certificate by asking for it: approved, signed, let in, and held to what their names may do.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Cluster, text};
use crate::kubectl::{Kubectl, is_installed};

const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

/// Makes a key and a request, and sends the request.
fn ask(cluster: &Cluster, name: &str, subject: &str, signer: &str, usage: &str) -> PathBuf {
    let (key, manifest) = request(cluster, name, subject, signer, usage);
    Kubectl(cluster, "kubectl").says(&format!("create -f {}", manifest.display()), &["created"]);
    key
}

/// Makes a key, and a manifest of a request.
fn request(cluster: &Cluster, name: &str, subject: &str, signer: &str, usage: &str) -> (PathBuf, PathBuf) {
    let key = cluster.dir().join(format!("{name}.key"));
    let request = cluster.dir().join(format!("{name}.csr"));
    openssl(
        &["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout"],
        &[&key, &request],
    );
    let manifest = cluster.dir().join(format!("{name}.yaml"));
    let indented = std::fs::read_to_string(&request).unwrap();
    let base64 = Command::new("openssl").args(["base64", "-A", "-in"]).arg(&request).output().unwrap();
    assert!(base64.status.success() && indented.contains("BEGIN CERTIFICATE REQUEST"));
    let base64 = String::from_utf8(base64.stdout).unwrap();
    let text = format!(
        "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\n\
         spec:\n  signerName: {signer}\n  expirationSeconds: 3600\n  usages: [{usage}, digital signature]\n  \
         request: {base64}\n"
    );
    std::fs::write(&manifest, text).unwrap();
    (key, manifest)
}

fn openssl(args: &[&str], files: &[&Path; 2]) {
    let output = Command::new("openssl").args(args).arg(files[0]).arg("-out").arg(files[1]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
}

fn says(args: &[&str], file: &Path) -> String {
    text(&Command::new("openssl").args(args).arg(file).output().unwrap())
}

#[tokio::test]
async fn who_asks_for_a_certificate_and_gets_it_is_who_it_says_and_may_what_that_one_may() {
    if !is_installed() {
        return;
    }
    if !testing::has("openssl") {
        return;
    }
    let cluster = Cluster::up().await;
    let kubectl = Kubectl(&cluster, "kubectl");
    let key = ask(&cluster, "jane", "/O=dev/O=ops/CN=jane", CLIENT, "client auth");
    kubectl.says("get csr jane", &["Pending", CLIENT, "kubernetes-admin", "60m"]);
    kubectl.says("certificate approve jane", &["approved"]);
    kubectl.says_soon("get csr jane", "Approved,Issued");
    let base64 = kubectl.says("get csr jane -o jsonpath={.status.certificate}", &[]);
    let (encoded, certificate) = (cluster.dir().join("jane.b64"), cluster.dir().join("jane.crt"));
    std::fs::write(&encoded, base64).unwrap();
    openssl(&["base64", "-d", "-A", "-in"], &[&encoded, &certificate]);
    let shown = says(&["x509", "-noout", "-text", "-in"], &certificate);
    for word in ["O = dev, O = ops, CN = jane", "TLS Web Client Authentication", "CA:FALSE", "-requests"] {
        let spaces = |text: &str| text.replace(' ', "");
        assert!(spaces(&shown).contains(&spaces(word)), "{word}: {shown}");
    }

    // A kubeconfig of her own beside the administrator's.
    let config = cluster.dir().join("jane.conf");
    std::fs::copy(cluster.kubeconfig(), &config).unwrap();
    let jane = format!("--kubeconfig={}", config.display());
    let files = format!("--client-certificate={} --client-key={}", certificate.display(), key.display());
    kubectl.says(&format!("{jane} config set-credentials jane {files} --embed-certs"), &["set"]);
    kubectl.says(&format!("{jane} config set-context --current --user=jane"), &["modified"]);
    kubectl.says(&format!("{jane} auth whoami"), &["jane", "dev", "ops", "system:authenticated"]);
    kubectl.fails(&format!("{jane} get pods"), &["Forbidden", r#"User "jane" cannot list"#]);
    kubectl.says("create rolebinding ops --clusterrole=view --group=ops", &["created"]);
    kubectl.says_soon(&format!("{jane} get pods"), "No resources found");
    kubectl.fails(&format!("{jane} delete pod any"), &["Forbidden"]);
    kubectl.says("create rolebinding jane --clusterrole=edit --user=jane", &["created"]);
    kubectl.says_soon(&format!("{jane} auth can-i delete pods"), "yes");
    kubectl.fails(&format!("{jane} certificate approve jane"), &["Forbidden"]);

    // No, for a person's reason; no, for the signer's; not here.
    ask(&cluster, "denied", "/O=dev/CN=jack", CLIENT, "client auth");
    kubectl.says("certificate deny denied", &["denied"]);
    kubectl.says("get csr denied", &["Denied"]);
    let node = "kubernetes.io/kubelet-serving";
    for (name, subject, signer, usage, why) in [
        ("serving", "/O=dev/CN=jack", node, "server auth", "subject organization is not system:nodes"),
        ("nameless", "/O=system:nodes/CN=system:node:n9", node, "server auth", "subjectAltName is required"),
        ("server", "/O=dev/CN=jack", CLIENT, "server auth", "invalid usage"),
    ] {
        ask(&cluster, name, subject, signer, usage);
        kubectl.says(&format!("certificate approve {name}"), &["approved"]);
        kubectl.says_soon(&format!("get csr {name}"), "Approved,Failed");
        kubectl.says(&format!("get csr {name} -o yaml"), &["SignerValidationFailure", why]);
    }
    let (_, master) = request(&cluster, "master", "/O=system:masters/CN=jack", CLIENT, "client auth");
    kubectl.fails(&format!("create -f {}", master.display()), &["Forbidden", "with system:masters group"]);
    ask(&cluster, "other", "/O=dev/CN=jack", "example.com/signer", "client auth");
    kubectl.says("certificate approve other", &["approved"]);
    ask(&cluster, "part", "/CN=system:kube-scheduler", CLIENT, "client auth");
    kubectl.says("certificate approve part", &["approved"]);
    kubectl.says_soon("get csr part", "Approved,Failed");
    kubectl.says("get csr part -o yaml", &["own parts: system:kube-scheduler"]);
    let requests = kubectl.says("get csr", &[]);
    assert_eq!(requests.matches("Issued").count(), 1, "hers alone was signed: {requests}");

    // Root on a host can read the key that signs requests. It makes users with it, and nobody more.
    let pki = cluster.folder().join("n1").join("pki");
    let extensions = cluster.dir().join("extensions");
    std::fs::write(&extensions, "extendedKeyUsage=clientAuth\nkeyUsage=digitalSignature\n").unwrap();
    for (name, subject, answer) in [
        ("forged", "/O=system:masters/CN=mallory", "Unauthorized"),
        ("forged-host", "/O=system:nodes/CN=system:node:n2", "Unauthorized"),
        ("forged-user", "/O=dev/CN=mallory", r#"User "mallory" cannot list"#),
    ] {
        let (key, _) = request(&cluster, name, subject, CLIENT, "client auth");
        let (asked, signed) =
            (cluster.dir().join(format!("{name}.csr")), cluster.dir().join(format!("{name}.crt")));
        let (ca, ca_key) = (pki.join("requests-ca.crt"), pki.join("requests-ca.key"));
        let [ca, ca_key, extensions] = [&ca, &ca_key, &extensions].map(|path| path.to_str().unwrap());
        let sign = [
            "x509",
            "-req",
            "-days",
            "2",
            "-CA",
            ca,
            "-CAkey",
            ca_key,
            "-set_serial",
            "7",
            "-extfile",
            extensions,
            "-in",
        ];
        openssl(&sign, &[&asked, &signed]);
        let files = format!("--client-certificate={} --client-key={}", signed.display(), key.display());
        kubectl.says(&format!("{jane} config set-credentials {name} {files} --embed-certs"), &["set"]);
        kubectl.fails(&format!("{jane} --user={name} get secrets -A"), &[answer]);
    }
}
