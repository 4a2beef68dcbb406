//! Real heartbeats between three memberships on loopback.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.
#![allow(clippy::disallowed_methods)] // A test is a driver: it measures real time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use membership::lease::Ended;
use membership::{HeartbeatDriver, Hosts, Lease, Options};
use tokio::time::timeout;

const KEY: [u8; 32] = [7; 32];
const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

/// Three addresses that were free just now.
fn addresses() -> BTreeMap<String, SocketAddr> {
    let sockets: Vec<_> = NAMES.iter().map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
    NAMES.iter().zip(&sockets).map(|(name, s)| (name.to_string(), s.local_addr().unwrap())).collect()
}

fn start(name: &str, addresses: &BTreeMap<String, SocketAddr>, key: [u8; 32]) -> HeartbeatDriver {
    HeartbeatDriver::start(Options::new(name, addresses[name], addresses.clone(), key)).unwrap()
}

async fn wait(membership: &HeartbeatDriver, what: impl Fn(&Hosts) -> bool) -> Arc<Hosts> {
    let mut hosts = membership.hosts();
    let met = timeout(SOON, hosts.wait_for(|hosts| what(hosts))).await;
    met.expect("in time").unwrap().clone()
}

fn all_heard(hosts: &Hosts) -> bool {
    hosts.0.values().all(|host| !host.silent && host.incarnation.is_some())
}

#[tokio::test]
async fn who_stops_is_silent_at_both_others_and_heard_again_after_its_restart() {
    let addresses = addresses();
    let mut all: BTreeMap<_, _> = NAMES.iter().map(|name| (*name, start(name, &addresses, KEY))).collect();
    for membership in all.values() {
        let hosts = wait(membership, all_heard).await;
        assert_eq!(hosts.0.len(), 2, "itself is not among them");
    }
    let first_life = all["n1"].incarnation();
    let stopped = Instant::now();
    drop(all.remove("n1"));
    for membership in all.values() {
        let hosts = wait(membership, |hosts| hosts.is_silent("n1")).await;
        assert!(stopped.elapsed() >= Duration::from_millis(150), "not before its time");
        let mut silence = membership.silence();
        timeout(SOON, silence.wait_for(|s| s.contains_key("n1"))).await.unwrap().unwrap();
        assert_eq!(silence.borrow()["n1"], hosts.0["n1"].last_heard);
    }
    all.insert("n1", start("n1", &addresses, KEY));
    let second_life = all["n1"].incarnation();
    assert_ne!(first_life, second_life);
    for name in ["n2", "n3"] {
        let heard = |hosts: &Hosts| !hosts.is_silent("n1") && hosts.0["n1"].incarnation == Some(second_life);
        wait(&all[name], heard).await;
    }
    wait(&all["n1"], all_heard).await;
}

#[tokio::test]
async fn a_host_that_joins_is_heard_and_one_that_leaves_is_forgotten() {
    let addresses = addresses();
    let mut two = addresses.clone();
    two.remove("n3");
    let beginning = |name: &str| Options::new(name, addresses[name], two.clone(), KEY);
    let (n1, n2) = (beginning("n1"), beginning("n2"));
    let (n1, n2) = (HeartbeatDriver::start(n1).unwrap(), HeartbeatDriver::start(n2).unwrap());
    let n3 = start("n3", &addresses, KEY);
    wait(&n3, |hosts| hosts.is_silent("n1")).await;
    assert!(!n1.hosts().borrow().0.contains_key("n3"), "a stranger doesn't count");
    for membership in [&n1, &n2] {
        membership.peers().send_replace(addresses.clone());
    }
    for membership in [&n1, &n2, &n3] {
        wait(membership, |hosts| hosts.0.len() == 2 && all_heard(hosts)).await;
    }
    drop(n3);
    wait(&n1, |hosts| hosts.is_silent("n3")).await;
    n1.peers().send_replace(two);
    wait(&n1, |hosts| hosts.0.keys().eq(["n2"])).await;
    assert!(n1.silence().borrow().is_empty() && n1.last_heard().of("n3").is_none());
    wait(&n2, |hosts| hosts.is_silent("n3")).await;
}

#[tokio::test]
async fn the_very_first_beat_goes_out() {
    let addresses = addresses();
    let n1 = start("n1", &addresses, KEY);
    let seldom = Options::new("n2", addresses["n2"], addresses.clone(), KEY);
    let _n2 = HeartbeatDriver::start(Options { interval: 10 * SOON, ..seldom }).unwrap();
    wait(&n1, |hosts| hosts.0["n2"].incarnation.is_some()).await;
}

#[tokio::test]
async fn another_key_and_garbage_are_not_heard() {
    let addresses = addresses();
    let n1 = start("n1", &addresses, KEY);
    let _intruder = start("n2", &addresses, [8; 32]);
    let noise = UdpSocket::bind("127.0.0.1:0").unwrap();
    for length in [0, 1, 2, 33, 50, 300, 2_000] {
        noise.send_to(&vec![1; length], n1.address()).unwrap();
    }
    wait(&n1, |hosts| hosts.is_silent("n2") && hosts.is_silent("n3")).await;
    let _n3 = start("n3", &addresses, KEY);
    let hosts = wait(&n1, |hosts| !hosts.is_silent("n3")).await;
    assert!(hosts.is_silent("n2"), "it beats all the time, with the wrong key");
    assert!(n1.last_heard().of("n3").is_some());
    assert_eq!(n1.last_heard().of("n2"), None);
    assert_eq!(hosts.0["n2"].incarnation, None);
}

#[tokio::test]
async fn an_address_in_use_is_named_and_free_again_after_the_end() {
    let addresses = addresses();
    let n1 = start("n1", &addresses, KEY);
    let error =
        HeartbeatDriver::start(Options::new("n1", addresses["n1"], BTreeMap::new(), KEY)).unwrap_err();
    assert!(error.to_string().contains(&addresses["n1"].to_string()), "{error}");
    drop(n1);
    start("n1", &addresses, KEY);
    assert!(HeartbeatDriver::start(Options::new("", addresses["n2"], BTreeMap::new(), KEY)).is_err());
}

#[tokio::test]
async fn a_host_that_is_heard_holds_its_lease_and_one_that_is_gone_is_fenced() {
    let addresses = addresses();
    let mut all: BTreeMap<_, _> = NAMES.iter().map(|name| (*name, start(name, &addresses, KEY))).collect();
    for driver in all.values() {
        let mut lease = driver.lease();
        timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(1))).await.unwrap().unwrap();
        assert!(driver.lease_page().until().is_some());
    }
    drop(all.remove("n1"));
    for driver in all.values() {
        let (mut ended, fenced) = (driver.ended(), Ended { epoch: 1, is_back: false });
        timeout(SOON, ended.wait_for(|ended| ended.get("n1") == Some(&fenced))).await.unwrap().unwrap();
        assert_eq!(*driver.lease().borrow(), Lease::Held(1), "two of three are a majority");
    }
    drop(all.remove("n2"));
    // Nobody is left to hear it: it says so, and begins anew once nothing of its epoch is left.
    let alone = &all["n3"];
    let mut lease = alone.lease();
    timeout(SOON, lease.wait_for(|lease| *lease == Lease::Over(1))).await.unwrap().unwrap();
    assert_eq!(alone.lease_page().until(), None);
    alone.left().send_replace(Some(1));
    timeout(SOON, lease.wait_for(|lease| *lease == Lease::Awaited(2))).await.unwrap().unwrap();
    let second = Options { epoch: 2, ..Options::new("n2", addresses["n2"], addresses.clone(), KEY) };
    let _second = HeartbeatDriver::start(second).unwrap();
    timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(2))).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_host_that_hears_nobody_though_all_hear_it_is_silent_and_fenced_until_it_hears_them() {
    let addresses = addresses();
    let all: BTreeMap<_, _> = NAMES.iter().map(|name| (*name, start(name, &addresses, KEY))).collect();
    for driver in all.values() {
        let mut lease = driver.lease();
        timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(1))).await.unwrap().unwrap();
    }
    // What the others send to it goes elsewhere.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut astray = addresses.clone();
    astray.insert("n1".to_owned(), elsewhere.local_addr().unwrap());
    for name in ["n2", "n3"] {
        all[name].peers().send_replace(astray.clone());
    }
    let deaf = &all["n1"];
    for name in ["n2", "n3"] {
        let hosts = wait(&all[name], |hosts| hosts.is_silent("n1")).await;
        assert_eq!(hosts.0["n1"].incarnation, Some(deaf.incarnation()), "in the same life");
    }
    let mut lease = deaf.lease();
    timeout(SOON, lease.wait_for(|lease| *lease == Lease::Over(1))).await.unwrap().unwrap();
    deaf.left().send_replace(Some(1));
    for name in ["n2", "n3"] {
        let (mut ended, fenced) = (all[name].ended(), Ended { epoch: 1, is_back: false });
        timeout(SOON, ended.wait_for(|ended| ended.get("n1") == Some(&fenced))).await.unwrap().unwrap();
        assert!(all[name].hosts().borrow().is_silent("n1"));
        assert_eq!(*all[name].lease().borrow(), Lease::Held(1), "two of three are a majority");
    }
    for name in ["n2", "n3"] {
        all[name].peers().send_replace(addresses.clone());
    }
    timeout(SOON, lease.wait_for(|lease| matches!(lease, Lease::Held(2..)))).await.unwrap().unwrap();
    for name in ["n2", "n3"] {
        wait(&all[name], |hosts| !hosts.is_silent("n1")).await;
        let mut ended = all[name].ended();
        timeout(SOON, ended.wait_for(|ended| ended["n1"].is_back)).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_member_keeps_its_promises_over_a_restart() {
    let (addresses, folder) = (addresses(), tempfile::tempdir().unwrap());
    let options = |name: &str| Options {
        memory: Some(folder.path().join(format!("{name}.json"))),
        ..Options::new(name, addresses[name], addresses.clone(), KEY)
    };
    let begin = |name| HeartbeatDriver::start(options(name)).unwrap();
    let mut all: BTreeMap<_, _> = NAMES.iter().map(|name| (*name, begin(name))).collect();
    for driver in all.values() {
        let mut lease = driver.lease();
        timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(1))).await.unwrap().unwrap();
    }
    drop(all.remove("n1"));
    let fenced = Ended { epoch: 1, is_back: false };
    let mut ended = all["n2"].ended();
    timeout(SOON, ended.wait_for(|ended| ended.get("n1") == Some(&fenced))).await.unwrap().unwrap();
    drop(all);

    // All forget what they counted, and the first is gone for good: the others know by their promises, and go on in later epochs.
    // Nobody has to say who the members are.
    let again = |name| HeartbeatDriver::start(Options { members: BTreeSet::new(), ..options(name) }).unwrap();
    let all: Vec<_> = ["n2", "n3"].map(again).into();
    for driver in &all {
        let (mut ended, mut lease) = (driver.ended(), driver.lease());
        timeout(SOON, ended.wait_for(|ended| ended.get("n1") == Some(&fenced))).await.unwrap().unwrap();
        timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(2))).await.unwrap().unwrap();
    }
    // Its next process begins beyond what was promised about it.
    let first = again("n1");
    let mut lease = first.lease();
    timeout(SOON, lease.wait_for(|lease| *lease == Lease::Held(2))).await.unwrap().unwrap();
}
