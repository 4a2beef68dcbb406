//! With TLS, only those whom the cluster's authority knows come in.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use etcd::{Client, Code, Tls};
use pki::{Authority, ClientAuth, HostNames};
use rustls::pki_types::CertificateDer;
use store::Memory;
use tokio::net::TcpListener;

use crate::compare::put;
use crate::servers::{Alone, identity};

#[tokio::test(flavor = "multi_thread")]
async fn a_client_needs_a_certificate() {
    let now = SystemTime::now();
    let authority = Authority::create("test", now).unwrap();
    let trust = authority.trust().unwrap();
    let local = Ipv4Addr::LOCALHOST.into();
    let names =
        HostNames { name: "n1".into(), address: local, virtual_address: local, first_service_address: local };
    let host = authority.host_identity(&names, now).unwrap();
    let admin = authority.admin_identity(now).unwrap();
    let stranger = Authority::create("other", now).unwrap().admin_identity(now).unwrap();

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Tls { config: host.server_config(&trust, ClientAuth::Required, &[]).unwrap(), admits };
    tokio::spawn(etcd::serve(
        listener,
        Some(tls),
        Arc::new(Memory::default()),
        Arc::new(Alone),
        identity(address),
    ));
    let ask = async |tls| {
        let endpoint = format!("https://{address}").parse().unwrap();
        Client::new(vec![endpoint], Some(tls)).put(put("/a", "1")).await
    };
    ask(admin.client_config(&trust, &[]).unwrap()).await.unwrap();
    for tls in [trust.client_config(&[]).unwrap(), stranger.client_config(&trust, &[]).unwrap()] {
        let refused = ask(tls).await.unwrap_err();
        assert_eq!(refused.code, Code::Unauthenticated, "{refused}");
    }
    let known = ask(host.client_config(&trust, &[]).unwrap()).await.unwrap_err();
    assert_eq!((known.code, &*known.message), (Code::PermissionDenied, "etcdserver: permission denied"));
    let plain = Client::new(vec![format!("http://{address}").parse().unwrap()], None);
    assert_eq!(plain.put(put("/a", "1")).await.unwrap_err().code, Code::Unavailable);

    let folder = tempfile::tempdir().unwrap();
    trust.save(folder.path()).unwrap();
    admin.save(folder.path(), "admin").unwrap();
    host.save(folder.path(), "n1").unwrap();
    let etcdctl = async |who: &str, command: &[&str]| {
        let file = |name: String| folder.path().join(name);
        let mut etcdctl = tokio::process::Command::new("etcdctl");
        etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &format!("https://{address}"), "--cacert"]);
        etcdctl.arg(file("ca.crt".into())).arg("--cert").arg(file(format!("{who}.crt")));
        let output = etcdctl.arg("--key").arg(file(format!("{who}.key"))).args(command).output().await;
        output.ok().map(|output| (output.status.success(), String::from_utf8(output.stderr).unwrap()))
    };
    let Some(got) = etcdctl("admin", &["get", "/a"]).await else {
        return testing::skip("etcdctl", "etcdctl is not installed");
    };
    assert!(got.0, "{}", got.1);
    let status = etcdctl("admin", &["endpoint", "status"]).await.unwrap();
    assert!(status.0, "{}", status.1);
    let (ok, said) = etcdctl("n1", &["get", "/a"]).await.unwrap();
    assert!(!ok && said.contains("permission denied"), "{said}");
}

fn admits(certificate: &CertificateDer<'_>) -> bool {
    certificate.windows(14).any(|text| text == b"system:masters")
}
