//! What every engine does, for those in this crate.
#![allow(clippy::disallowed_methods)] // A test is a driver.
#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

mod suite;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::SystemTime;

use pki::{Authority, ClientAuth, HostNames};
use store::{Config, Embedded, Memory, Store};
use tokio::net::TcpListener;

#[tokio::test]
async fn memory_is_an_engine() {
    suite::run(Arc::new(Memory::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_engine_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::create("test", SystemTime::now()).unwrap();
    let local = Ipv4Addr::LOCALHOST.into();
    let host =
        HostNames { name: "n1".into(), address: local, virtual_address: local, first_service_address: local };
    let identity = authority.host_identity(&host, SystemTime::now()).unwrap();
    let trust = authority.trust().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let config = Config::new(
        "n1",
        "test",
        [("n1".to_owned(), listener.local_addr().unwrap())].into(),
        folder.path().to_owned(),
        identity.server_config(&trust, ClientAuth::Required, &[]).unwrap(),
        identity.client_config(&trust, &[]).unwrap(),
    );
    let store = Embedded::start_on(config.unwrap(), listener).await.unwrap();
    store.leadership().wait_for(|leadership| leadership.is_me).await.unwrap();
    suite::run(store).await;
}
