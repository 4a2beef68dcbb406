//! Certificates by request: who gets one, who doesn't, and what becomes of the requests.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use crate::cluster::Cluster;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

const GROUP: &str = "certificates.k8s.io/v1";
const KIND: &str = "CertificateSigningRequest";
const CLIENT: &str = "kubernetes.io/kube-apiserver-client";

async fn ask(cluster: &Cluster, name: &str, signer: &str, group: &str) {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, "jane");
    let pem = params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    cluster
        .create(json!({"kind": KIND, "apiVersion": GROUP, "metadata": {"name": name}, "spec": {
            "request": STANDARD.encode(pem), "signerName": signer, "usages": ["client auth"],
            "expirationSeconds": 600}}))
        .await;
}

async fn decide(cluster: &Cluster, name: &str, decision: &str) {
    let condition = json!({"type": decision, "status": "True", "reason": "r", "message": "",
        "lastUpdateTime": crate::cluster::wire(cluster.now.wall)});
    let conditions: Value = json!({"status": {"conditions": [condition]}});
    cluster.patch(GROUP, KIND, "", name, "approval", conditions).await.unwrap();
}

fn request(cluster: &Cluster, name: &str) -> Option<CertificateSigningRequest> {
    cluster.get("", name)
}

fn certificate(cluster: &Cluster, name: &str) -> Option<String> {
    let certificate = request(cluster, name)?.status?.certificate?;
    Some(String::from_utf8(certificate.0).unwrap())
}

#[tokio::test]
async fn what_was_approved_is_signed_and_nothing_else() {
    let mut cluster = Cluster::new(&[]).await;
    for (name, signer) in
        [("good", CLIENT), ("denied", CLIENT), ("pending", CLIENT), ("others", "example.com/signer")]
    {
        ask(&cluster, name, signer, "dev").await;
    }
    cluster.settle().await;
    assert_eq!(certificate(&cluster, "good"), None, "nobody approved it yet");
    for (name, decision) in [("good", "Approved"), ("denied", "Denied"), ("others", "Approved")] {
        decide(&cluster, name, decision).await;
    }
    cluster.settle().await;
    let pem = certificate(&cluster, "good").unwrap();
    let until = pki::valid_until(&pem).unwrap();
    let now = std::time::SystemTime::from(cluster.now.wall);
    let lives = until.duration_since(now).unwrap().as_secs();
    assert!((598..=601).contains(&lives), "{lives}");
    for name in ["denied", "pending", "others"] {
        assert_eq!(certificate(&cluster, name), None, "{name}");
    }
}

#[tokio::test]
async fn a_request_that_breaks_its_signers_rules_fails_and_says_why() {
    let mut cluster = Cluster::new(&[]).await;
    ask(&cluster, "node", "kubernetes.io/kube-apiserver-client-kubelet", "dev").await;
    decide(&cluster, "node", "Approved").await;
    cluster.settle().await;
    let conditions = request(&cluster, "node").unwrap().status.unwrap().conditions.unwrap();
    let failed = conditions.iter().find(|condition| condition.type_ == "Failed").unwrap();
    assert_eq!(failed.reason.as_deref(), Some("SignerValidationFailure"));
    assert_eq!(failed.message.as_deref(), Some("subject organization is not system:nodes"));
    assert!(conditions.iter().any(|condition| condition.type_ == "Approved"), "what was decided stays");
    assert_eq!(certificate(&cluster, "node"), None);
}

#[tokio::test]
async fn old_requests_go() {
    let mut cluster = Cluster::new(&[]).await;
    for name in ["issued", "denied", "approved", "pending"] {
        let signer = if name == "approved" { "example.com/signer" } else { CLIENT };
        ask(&cluster, name, signer, "dev").await;
    }
    for (name, decision) in [("issued", "Approved"), ("denied", "Denied"), ("approved", "Approved")] {
        decide(&cluster, name, decision).await;
    }
    cluster.settle().await;
    let left = |cluster: &Cluster| -> Vec<String> {
        let list = cluster.list::<CertificateSigningRequest>();
        list.iter().map(|request| request.metadata.name.clone().unwrap()).collect()
    };
    assert_eq!(left(&cluster), ["approved", "denied", "issued", "pending"]);
    cluster.pass(Duration::from_secs(602));
    cluster.settle().await;
    assert_eq!(left(&cluster), ["approved", "denied", "pending"], "its certificate is over");
    cluster.pass(Duration::from_secs(3600));
    cluster.settle().await;
    assert_eq!(left(&cluster), ["pending"], "they were decided an hour ago");
    cluster.pass(Duration::from_secs(24 * 3600));
    cluster.settle().await;
    assert!(left(&cluster).is_empty(), "nobody decided");
}
