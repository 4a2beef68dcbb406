//! With TLS, only those whom the cluster's authority knows come in.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use etcd::{Client, Code};
use pki::{Authority, ClientAuth, HostNames};
use store::Memory;
use tokio::net::TcpListener;

use crate::compare::put;
use crate::servers::identity;

#[tokio::test]
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
    let tls = host.server_config(&trust, ClientAuth::Required, &[]).unwrap();
    tokio::spawn(etcd::serve(listener, Some(tls), Arc::new(Memory::default()), identity(address)));
    let ask = async |tls| {
        let endpoint = format!("https://{address}").parse().unwrap();
        Client::new(vec![endpoint], Some(tls)).put(put("/a", "1")).await
    };
    ask(admin.client_config(&trust, &[]).unwrap()).await.unwrap();
    for tls in [trust.client_config(&[]).unwrap(), stranger.client_config(&trust, &[]).unwrap()] {
        assert_eq!(ask(tls).await.unwrap_err().code, Code::Unavailable);
    }
    let plain = Client::new(vec![format!("http://{address}").parse().unwrap()], None);
    assert_eq!(plain.put(put("/a", "1")).await.unwrap_err().code, Code::Unavailable);
}
