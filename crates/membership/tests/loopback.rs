//! Real heartbeats between three memberships on loopback.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.
#![allow(clippy::disallowed_methods)] // A test is a driver: it measures real time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use membership::lease::Ended;
use membership::{HeartbeatDriver, Hosts, Lease, Options};
use tokio::time::timeout;

const KEY: [u8; 32] = [7; 32];
const NAMES: [&str; 3] = ["n1", "n2", "n3"];
/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

/// Three addresses that nobody else has: ports that were free just now may be taken by what connects meanwhile.
fn addresses() -> BTreeMap<String, SocketAddr> {
    static TESTS: AtomicU8 = AtomicU8::new(0);
    let test = TESTS.fetch_add(1, Ordering::Relaxed);
    let address =
        |(name, number): (&&str, u8)| (name.to_string(), SocketAddr::from(([127, 77, test, number], 2381)));
    NAMES.iter().zip(1..).map(address).collect()
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

/// An address at which streams get through to another one, and datagrams don't until they are let through.
struct Wall {
    address: SocketAddr,
    datagrams: Arc<tokio::sync::watch::Sender<bool>>,
    /// How many streams there are.
    streams: Arc<tokio::sync::watch::Sender<usize>>,
}

impl Wall {
    async fn before(behind: SocketAddr) -> Wall {
        let (listener, socket) = loop {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            if let Ok(socket) = tokio::net::UdpSocket::bind(listener.local_addr().unwrap()).await {
                break (listener, socket);
            }
        };
        let address = listener.local_addr().unwrap();
        let (datagrams, streams) = (Arc::default(), Arc::new(tokio::sync::watch::Sender::new(0)));
        let wall = Wall { address, datagrams, streams: Arc::clone(&streams) };
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let streams = Arc::clone(&streams);
                tokio::spawn(async move {
                    let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                    streams.send_modify(|count| *count += 1);
                    let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    streams.send_modify(|count| *count -= 1);
                });
            }
        });
        let open = Arc::clone(&wall.datagrams);
        tokio::spawn(async move {
            let mut datagram = [0; 2048];
            while let Ok(length) = socket.recv(&mut datagram).await {
                if *open.borrow() {
                    socket.send_to(&datagram[..length], behind).await.unwrap();
                }
            }
        });
        wall
    }

    async fn has_streams(&self, are: impl Fn(&usize) -> bool) {
        timeout(SOON, self.streams.subscribe().wait_for(are)).await.expect("in time").unwrap();
    }
}

#[tokio::test]
async fn beats_go_by_streams_where_datagrams_do_not_arrive_and_as_long_as_they_do_not() {
    let addresses = addresses();
    let walls = [Wall::before(addresses["n1"]).await, Wall::before(addresses["n2"]).await];
    let behind = |name: &str, other: &str, wall: &Wall| {
        let peers = BTreeMap::from([(name.to_owned(), addresses[name]), (other.to_owned(), wall.address)]);
        HeartbeatDriver::start(Options::new(name, addresses[name], peers, KEY)).unwrap()
    };
    let (n1, n2) = (behind("n1", "n2", &walls[1]), behind("n2", "n1", &walls[0]));
    for host in [&n1, &n2] {
        wait(host, all_heard).await;
        let held = |lease: &Lease| matches!(lease, Lease::Held(_));
        timeout(SOON, host.lease().wait_for(held)).await.expect("in time").unwrap();
    }
    for wall in &walls {
        wall.has_streams(|count| *count == 1).await;
    }
    // For several times as long as it takes to call somebody silent.
    let begin = Instant::now();
    let heard_for = |host: &HeartbeatDriver, other| {
        host.last_heard().of(other).is_some_and(|at| at > begin + Duration::from_secs(1))
    };
    while !(heard_for(&n1, "n2") && heard_for(&n2, "n1")) {
        assert!(begin.elapsed() < SOON, "nothing comes any more");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((*n1.lease().borrow(), *n2.lease().borrow()), (Lease::Held(1), Lease::Held(1)));

    for wall in &walls {
        wall.datagrams.send_replace(true);
    }
    for wall in &walls {
        wall.has_streams(|count| *count == 0).await;
    }
    assert!(all_heard(&n1.hosts().borrow()) && all_heard(&n2.hosts().borrow()));
    drop(n2);
    wait(&n1, |hosts| hosts.is_silent("n2")).await;
}

#[tokio::test]
async fn a_stream_of_a_stranger_and_one_that_carries_no_beats_are_closed() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let addresses = addresses();
    let (n1, stranger) = (start("n1", &addresses, KEY), SocketAddr::from(([127, 77, 255, 1], 0)));
    let host = SocketAddr::new(addresses["n2"].ip(), 0);
    let with_length = |length: u16, content: &[u8]| [&length.to_be_bytes()[..], content].concat();
    for (from, bytes) in
        [(stranger, Vec::new()), (host, with_length(3, b"abc")), (host, with_length(u16::MAX, b"abc"))]
    {
        let connected = timeout(SOON, async {
            loop {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(from).unwrap();
                // It listens on its own thread, a moment later.
                match socket.connect(addresses["n1"]).await {
                    Ok(stream) => return stream,
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        let mut stream = connected.await.expect("it listens");
        // It may be closed by then.
        let _ = stream.write_all(&bytes).await;
        let ended = timeout(SOON, stream.read_u8()).await.expect("it is closed in time");
        assert!(ended.is_err(), "{from}");
    }
    drop(n1);
}
