//! What a host does about its addresses, in a network namespace of the test's own.

use std::collections::BTreeSet;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use machinery::{Object, Status};
use membership::lease::Epoch;
use membership::{Lease, LeasePage, boottime};
use objects::{AddressLease, AddressPool, TAKES_ADDRESSES, Write, Writer};
use serde_json::{Value, json};
use socket2::{Domain, Protocol, Socket, Type};
use store::{Memory, Store, Txn};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Driver, LoadBalancing, Place};
use crate::dial::Dialer;
use crate::netlink::Netlink;
use crate::netlink::tests::{in_namespace, ip, pair};
use crate::on_link::OnLink;
use crate::{arp, keeper};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 200);
/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);
const HOUR: Duration = Duration::from_secs(3600);

/// The API as far as Leases need it.
#[derive(Clone)]
struct Api(Arc<Memory>);

impl Writer for Api {
    fn write<'a>(&'a self, _: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        Box::pin(async move {
            let (key, object) = match write {
                Write::Create(object) => (key(object.name()), object.into_value()),
                Write::Merge { subject, patch, .. } => {
                    let state = self.0.snapshot();
                    let key = if subject.kind == "Node" { node() } else { key(&subject.name) };
                    let Some(kv) = state.get(key.as_bytes()) else {
                        return Err(Status::unavailable("it isn't there".to_owned()));
                    };
                    if subject.kind != "Node"
                        && patch["metadata"]["resourceVersion"] != kv.mod_revision.to_string()
                    {
                        return Err(Status::unavailable("it is another version".to_owned()));
                    }
                    let mut object = serde_json::from_slice(&kv.value.bytes()).unwrap();
                    merge(&mut object, &patch);
                    (key, object)
                }
                other => panic!("{other:?}"),
            };
            self.0.txn(Txn::put(key.clone(), object.to_string())).await.unwrap();
            let mut object = Object::from_value(object).unwrap();
            let revision = self.0.snapshot().get(key.as_bytes()).unwrap().mod_revision;
            object.set_meta("resourceVersion", revision.to_string());
            Ok(object)
        })
    }
}

fn key(name: &str) -> String {
    objects::key("coordination.k8s.io", "leases", objects::ADDRESS_NAMESPACE, name)
}

fn node() -> String {
    objects::key("", "nodes", "", "n1")
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else { return *object = patch.clone() };
    for (name, value) in fields {
        match (value.is_null(), object.as_object_mut()) {
            (true, Some(object)) => drop(object.remove(name)),
            (false, Some(object)) => merge(object.entry(name).or_insert(json!({})), value),
            (_, None) => *object = json!({}),
        }
    }
}

#[allow(clippy::disallowed_methods)] // A test is a driver.
fn now() -> Timestamp {
    Timestamp::now()
}

impl Api {
    fn lease(&self) -> AddressLease {
        AddressLease::get(&self.0.snapshot(), ADDRESS).unwrap()
    }

    async fn create(&self) {
        let lease = AddressLease::new(ADDRESS, "d/web".into(), Some("n1".into()));
        self.write("", lease.create(now()).unwrap()).await.unwrap();
    }

    /// The leader's word.
    async fn want(&self, host: &str) {
        let want = async {
            loop {
                let lease = self.lease();
                let next = AddressLease { wanted: Some(host.to_owned()), ..lease.clone() };
                if self.write("", lease.change(&next, now())).await.is_ok() {
                    return;
                }
            }
        };
        timeout(SOON, want).await.expect("nobody else writes all the time");
    }

    /// Waits until the Node says that its host takes these addresses.
    async fn takes(&self, wanted: &str) {
        let said = || {
            let node = self.0.snapshot().get(node().as_bytes())?.value.bytes();
            let node: Value = serde_json::from_slice(&node).unwrap();
            Some(node["metadata"]["annotations"][TAKES_ADDRESSES].as_str()?.to_owned())
        };
        let says = async {
            while said().as_deref() != Some(wanted) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, says).await.is_ok(), "{:?} isn't {wanted:?}", said());
    }

    /// Waits until it is this host that holds the address, or nobody.
    async fn says(&self, holder: Option<&str>) {
        let says = async {
            while self.lease().holder.as_ref().map(|holder| holder.host.as_str()) != holder {
                sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(timeout(SOON, says).await.is_ok(), "{:?} isn't {holder:?}'s", self.lease());
    }
}

async fn is_here(wanted: bool) {
    let looks = async {
        while ip("address show").contains("10.73.0.200/32") != wanted {
            sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(SOON, looks).await.is_ok(), "it should be {wanted} that the address is here");
}

/// A host n1, and what drives it.
struct Host {
    lease: watch::Sender<Lease>,
    page: LeasePage,
    epoch: watch::Receiver<Option<Epoch>>,
    held: watch::Receiver<BTreeSet<IpAddr>>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Host {
    fn start(api: &Api, place: Place, process: u64) -> Self {
        Self::with(api, Arc::new(api.clone()), place, process)
    }

    fn with(api: &Api, writer: Arc<dyn Writer>, place: Place, process: u64) -> Self {
        let (lease, lease_seen) = watch::channel(Lease::Awaited(5));
        let page = LeasePage::create().unwrap();
        let (shown, epoch) = watch::channel(None);
        let options = LoadBalancing {
            pool: AddressPool::new([(ADDRESS, ADDRESS)]),
            lease: lease_seen,
            process,
            writer,
            epoch: shown,
        };
        let (holds, held) = watch::channel(BTreeSet::new());
        let stop = watch::Sender::new(false);
        let driver = Driver {
            host: "n1".into(),
            options,
            page: page.clone(),
            place,
            keeper: None,
            store: api.0.clone(),
            dialer: Arc::new(Dialer::new("n1")),
            held: holds,
            hosts: watch::Sender::new(Arc::default()).subscribe(),
        };
        let task = tokio::spawn(driver.run(stop.subscribe()));
        Host { lease, page, epoch, held, stop, task }
    }

    fn hold(&self, epoch: Epoch, time: Duration) {
        self.page.set(epoch, Some(boottime() + time));
        self.lease.send_replace(Lease::Held(epoch));
    }
}

#[test]
fn an_address_is_on_the_link_while_the_leases_say_so() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("an_address_is_on_the_link", || async {
        let (near, _) = pair(&Netlink::open().unwrap()).await;
        let protocol = i32::from((libc::ETH_P_ARP as u16).to_be());
        let ear = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
        ear.set_nonblocking(true).unwrap();
        let (counter, changes) = watch::channel(0);
        tokio::spawn(keeper::listen(counter));
        let api = Api(Arc::new(Memory::default()));
        api.create().await;
        let place = Place::Link(OnLink::new(Netlink::open().unwrap(), "eth0".into(), changes));
        let mut host = Host::start(&api, place, 9);
        host.hold(5, HOUR);
        api.says(Some("n1")).await;
        is_here(true).await;
        assert_eq!(api.lease().holder.map(|holder| (holder.epoch, holder.process)), Some((5, 9)));
        host.epoch.wait_for(|epoch| *epoch == Some(5)).await.unwrap();
        let told = arp::announcement(arp::Form::Request, near.hardware, ADDRESS);
        timeout(SOON, heard(&ear, &told)).await.expect("the neighbours hear of it");

        ip("address del 10.73.0.200/32 dev eth0");
        is_here(true).await;
        // After the other end was off, neighbours hear of it again.
        ip("link set far down");
        sleep_for_a_look().await;
        while ear.recv(&mut [MaybeUninit::new(0); 128]).is_ok() {}
        ip("link set far up");
        timeout(SOON, heard(&ear, &told)).await.expect("they hear of it again");

        api.want("n2").await;
        api.says(None).await;
        is_here(false).await;
        host.epoch.wait_for(Option::is_none).await.unwrap();
        api.want("n1").await;
        is_here(true).await;

        // Nobody says that the lease is over: its time passes.
        host.hold(5, Duration::from_millis(500));
        is_here(false).await;
        host.epoch.wait_for(Option::is_none).await.unwrap();
        assert!(api.lease().holder.is_some(), "that it is over the leader knows by itself");
        host.hold(6, HOUR);
        is_here(true).await;
        assert_eq!(api.lease().holder.map(|holder| holder.epoch), Some(6));
        host.stop.send_replace(true);
        timeout(SOON, host.task).await.unwrap().unwrap();
        is_here(false).await;
        let left = api.lease();
        assert_eq!((left.holder, left.wanted, left.declined.as_deref()), (None, None, Some("n1")));
    });
}

/// Waits until a link's change was looked at: they are taken together for a moment.
async fn sleep_for_a_look() {
    sleep(keeper::TOGETHER * 10).await;
}

async fn heard(ear: &Socket, wanted: &[u8]) {
    let mut buffer = [MaybeUninit::new(0); 128];
    loop {
        while let Ok(length) = ear.recv(&mut buffer) {
            // SAFETY: every byte was initialised before `recv` wrote some of them.
            let frame: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            if frame.starts_with(wanted) {
                return;
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn on_loopback_what_is_held_is_announced() {
    let api = Api(Arc::new(Memory::default()));
    api.create().await;
    let mut host = Host::start(&api, Place::Switch, 9);
    host.hold(5, HOUR);
    let holds = |held: &BTreeSet<IpAddr>| held.contains(&IpAddr::V4(ADDRESS));
    timeout(SOON, host.held.wait_for(holds)).await.unwrap().unwrap();
    // Its Node says what it takes, once there is one, and again when it says something else.
    let object = json!({"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}});
    for _ in 0..2 {
        api.0.txn(Txn::put(node(), object.to_string())).await.unwrap();
        api.takes("10.73.0.200-10.73.0.200").await;
    }
    host.page.set(5, None);
    host.lease.send_replace(Lease::Over(5));
    timeout(SOON, host.held.wait_for(BTreeSet::is_empty)).await.unwrap().unwrap();
    host.stop.send_replace(true);
    timeout(SOON, host.task).await.unwrap().unwrap();
    api.takes("").await;
}

/// An API that refuses what is written about addresses, and how often it did.
struct Refusing(Arc<AtomicUsize>);

impl Writer for Refusing {
    fn write<'a>(&'a self, _: &'a str, write: Write) -> BoxFuture<'a, Result<Object, Status>> {
        if matches!(&write, Write::Merge { subject, .. } if subject.kind == "Lease") {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        Box::pin(async {
            sleep(Duration::from_millis(1)).await;
            Err(Status::unavailable("not now".to_owned()))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_api_refuses_is_tried_again_after_a_while_whatever_else_is_new() {
    let (api, refused) = (Api(Arc::new(Memory::default())), Arc::new(AtomicUsize::new(0)));
    api.create().await;
    let host = Host::with(&api, Arc::new(Refusing(refused.clone())), Place::Switch, 9);
    for _ in 0..100 {
        host.hold(5, HOUR);
        sleep(Duration::from_millis(10)).await;
    }
    let times = refused.load(Ordering::SeqCst);
    assert!((3..=6).contains(&times), "{times} times within a second");
}
