//! A host that is fenced while its machine goes on: what it sends reaches no other host until it is back.

use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use config::Ports;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::Api;
use nix::sched::{CloneFlags, setns};

use crate::harness::{Cluster, is_ready, wait_for};

/// Whether somebody on a host connects to an address, whatever the host's program does.
///
/// # Errors
/// Why that can't be tried: hosts on loopback have no network of their own, and it takes root to look into one.
fn connects(cluster: &Cluster, host: &str, to: SocketAddr) -> Result<bool, String> {
    let process = cluster.pid_of_host(host).ok_or("the host doesn't run")?;
    let of = |process: &str| File::open(format!("/proc/{process}/ns/net")).map_err(|why| why.to_string());
    let (own, there) = (of("self")?, of(&process.to_string())?);
    let number = |file: &File| file.metadata().map(|about| about.ino()).map_err(|why| why.to_string());
    if number(&own)? == number(&there)? {
        return Err("hosts share the machine's network".to_owned());
    }
    let connect = move || -> Result<bool, String> {
        setns(&there, CloneFlags::CLONE_NEWNET).map_err(|why| why.to_string())?;
        Ok(TcpStream::connect_timeout(&to, Duration::from_secs(1)).is_ok())
    };
    std::thread::spawn(connect).join().unwrap()
}

async fn address(client: &Client, host: &str) -> IpAddr {
    let node = Api::<Node>::all(client.clone()).get(host).await.unwrap();
    let addresses = node.status.and_then(|status| status.addresses).unwrap_or_default();
    let address = addresses.into_iter().find(|address| address.type_ == "InternalIP").unwrap();
    address.address.parse().unwrap()
}

#[tokio::test]
async fn a_machine_whose_host_is_fenced_reaches_no_other_until_it_is_back() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
    let other = address(&client, "n1").await;
    let (agent, api) =
        (SocketAddr::new(other, Ports::DEFAULT.agent), SocketAddr::new(other, Ports::DEFAULT.api));
    match connects(&cluster, "n3", agent) {
        Err(why) => return testing::skip("netns", format_args!("a fenced host's packets: {why}")),
        Ok(is_connected) => assert!(is_connected, "before"),
    }
    // The program stands still, and its kernel goes on.
    cluster.signal_host("n3", libc::SIGSTOP);
    wait_for("n3 to be fenced", || async { (cluster.happened("node-fenced", "n3") > 0).then_some(()) }).await;
    wait_for("n3 to be cut off", || async { (connects(&cluster, "n3", agent) == Ok(false)).then_some(()) })
        .await;
    assert_eq!(connects(&cluster, "n3", api), Ok(true), "the way back is open");

    cluster.signal_host("n3", libc::SIGCONT);
    wait_for("n3 to be let in again", || async {
        (connects(&cluster, "n3", agent) == Ok(true)).then_some(())
    })
    .await;
    wait_for("n3 to be Ready", || async {
        let node = Api::<Node>::all(client.clone()).get("n3").await.ok()?;
        (is_ready(&node) && !node.metadata.annotations?.contains_key(objects::FENCED_EPOCH)).then_some(())
    })
    .await;
}
