//! Services of type LoadBalancer: who gets which address, and which host holds it.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use controllers::LeaseEnd;
use k8s_openapi::api::core::v1::Service;
use objects::{AddressHolder, AddressLease, AddressPool, Delete};
use serde_json::{Value, json};
use store::KeyRange;

use crate::cluster::Cluster;

const HOSTS: [&str; 3] = ["n1", "n2", "n3"];

fn address(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 73, 0, last)
}

/// With so many addresses from 10.73.0.200 on.
async fn lending(count: u8) -> Cluster {
    let mut cluster = Cluster::new(&HOSTS).await;
    cluster
        .create(json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system"}}))
        .await;
    cluster.pool = AddressPool::new([(address(200), address(199 + count))]);
    cluster.take_over();
    cluster.settle().await;
    cluster
}

impl Cluster {
    async fn balance(&self, name: &str, more: Value) {
        let mut spec = json!({"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}]});
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": "default"});
        self.create(json!({"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": spec})).await;
    }

    fn addresses(&self) -> Vec<AddressLease> {
        let state = self.state();
        let all = state.range(&KeyRange::prefix(AddressLease::prefix()));
        all.filter_map(|kv| AddressLease::of(kv)).collect()
    }

    fn address_of(&self, service: &str) -> Option<String> {
        let status = self.get::<Service>("default", service)?.status?;
        status.load_balancer?.ingress?.pop()?.ip
    }

    /// How many addresses each host holds.
    fn held(&self) -> BTreeMap<String, usize> {
        let mut held = BTreeMap::new();
        for holder in self.addresses().into_iter().filter_map(|lease| lease.holder) {
            *held.entry(holder.host).or_default() += 1;
        }
        held
    }

    /// A host's word about an address.
    async fn say(&self, host: &str, lease: &AddressLease, next: &AddressLease) -> Result<(), u16> {
        let user = format!("system:node:{host}");
        self.writer.write(&user, lease.change(next, self.now.wall)).await.map(drop).map_err(|why| why.code)
    }

    /// The hosts that are heard take what they are to hold, and give up what others are to; everybody works until nothing is left to do.
    async fn rest(&mut self) {
        loop {
            self.settle().await;
            let mut is_busy = false;
            for lease in self.addresses() {
                let holder = lease.holder.as_ref().map(|holder| holder.host.clone());
                let (host, next) = match (&holder, &lease.wanted) {
                    (None, Some(wanted)) => {
                        let by = AddressHolder { host: wanted.clone(), epoch: 7, process: 1 };
                        (wanted.clone(), lease.taken(by))
                    }
                    (Some(holder), wanted) if wanted.as_ref() != Some(holder) => {
                        (holder.clone(), lease.released())
                    }
                    _ => continue,
                };
                if !self.silence.contains_key(&host) {
                    self.say(&host, &lease, &next).await.unwrap();
                    is_busy = true;
                }
            }
            if !is_busy {
                return;
            }
        }
    }
}

#[tokio::test]
async fn services_get_addresses_which_hosts_hold_evenly() {
    let mut cluster = lending(8).await;
    for n in 0..6 {
        cluster.balance(&format!("s{n}"), json!({})).await;
    }
    cluster.rest().await;
    let mut shown: Vec<_> = (0..6).map(|n| cluster.address_of(&format!("s{n}")).unwrap()).collect();
    shown.sort();
    shown.dedup();
    assert_eq!(shown.len(), 6, "each its own");
    assert_eq!(cluster.held(), HOSTS.map(|host| (host.to_owned(), 2)).into());
    assert_eq!(cluster.told("s0", "EnsuringLoadBalancer"), ["Ensuring load balancer"]);
    assert_eq!(cluster.told("s0", "EnsuredLoadBalancer"), ["Ensured load balancer"]);
    let ingress = cluster.get::<Service>("default", "s0").unwrap().status.unwrap().load_balancer.unwrap();
    assert_eq!(ingress.ingress.unwrap()[0].ip_mode.as_deref(), Some("VIP"));

    // The next leader decides the same, and moves nothing.
    let before = cluster.addresses();
    cluster.take_over();
    cluster.pass(Duration::from_secs(60));
    cluster.rest().await;
    assert_eq!(cluster.addresses(), before);
}

#[tokio::test]
async fn a_service_waits_for_an_address_while_none_is_free() {
    let mut cluster = lending(1).await;
    cluster.balance("first", json!({})).await;
    cluster.rest().await;
    cluster.balance("second", json!({})).await;
    cluster.balance("plain", json!({"type": "ClusterIP"})).await;
    cluster.rest().await;
    assert_eq!(
        (cluster.address_of("first").as_deref(), cluster.address_of("second")),
        (Some("10.73.0.200"), None)
    );
    let why = "Error syncing load balancer: failed to ensure load balancer: no address of loadBalancerCidrs is free";
    assert!(cluster.told("second", "SyncLoadBalancerFailed").contains(&why.to_owned()));
    cluster.delete("v1", "Service", "default", "first", Delete::default()).await;
    cluster.settle().await;
    assert_eq!(cluster.address_of("second"), None, "its holder hasn't given it up yet");
    cluster.rest().await;
    assert_eq!(cluster.address_of("second").as_deref(), Some("10.73.0.200"));

    // One that wants none any more gives its back.
    let plain = json!({"spec": {"type": "ClusterIP", "allocateLoadBalancerNodePorts": null}});
    cluster.patch("v1", "Service", "default", "second", "", plain).await.unwrap();
    cluster.rest().await;
    assert_eq!((cluster.address_of("second"), cluster.addresses()), (None, vec![]));
    assert_eq!(cluster.told("second", "DeletedLoadBalancer"), ["Deleted load balancer"]);
}

#[tokio::test]
async fn what_a_service_asks_for_is_honoured_or_refused_with_the_reason() {
    let mut cluster = lending(8).await;
    cluster.balance("third", json!({"loadBalancerIP": "10.73.0.203"})).await;
    cluster.balance("ours", json!({"loadBalancerClass": "holdfast.dev/pool"})).await;
    cluster.balance("theirs", json!({"loadBalancerClass": "example.com/other"})).await;
    cluster.rest().await;
    cluster.balance("same", json!({"loadBalancerIP": "10.73.0.203"})).await;
    cluster.balance("foreign", json!({"loadBalancerIP": "192.0.2.7"})).await;
    cluster.rest().await;
    assert_eq!(cluster.address_of("third").as_deref(), Some("10.73.0.203"));
    assert!(cluster.address_of("ours").is_some());
    for none in ["theirs", "same", "foreign"] {
        assert_eq!(cluster.address_of(none), None, "{none}");
    }
    let told = |name: &str| cluster.told(name, "SyncLoadBalancerFailed").pop().unwrap_or_default();
    assert!(told("same").ends_with("loadBalancerIP 10.73.0.203 is default/third's"), "{}", told("same"));
    assert!(told("foreign").ends_with(r#"loadBalancerIP "192.0.2.7" is no address of loadBalancerCidrs"#));
    assert_eq!(told("theirs"), "");
    let taken = cluster.addresses();
    let is_free = |address: &Ipv4Addr| taken.iter().all(|lease| lease.address != *address);
    let free = (200..208).map(address).find(is_free).unwrap().to_string();
    let other = json!({"spec": {"loadBalancerIP": free}});
    cluster.patch("v1", "Service", "default", "third", "", other).await.unwrap();
    cluster.rest().await;
    assert_eq!(cluster.address_of("third").as_deref(), Some(&*free));
    assert_eq!(cluster.address_of("same").as_deref(), Some("10.73.0.203"), "it waited for that one");
}

#[tokio::test]
async fn a_host_s_addresses_go_elsewhere_once_its_lease_is_over_and_come_back_one_by_one() {
    let mut cluster = lending(8).await;
    for n in 0..6 {
        cluster.balance(&format!("s{n}"), json!({})).await;
    }
    cluster.rest().await;
    let before = cluster.addresses();
    cluster.silence("n1");
    cluster.pass(Duration::from_millis(1900));
    cluster.look_at("n1");
    cluster.rest().await;
    assert_eq!(cluster.addresses(), before, "silence is a guess");
    let end = LeaseEnd { epoch: 7, is_back: false, since: cluster.now.instant };
    cluster.ended.insert("n1".into(), end);
    cluster.look_at("n1");
    cluster.rest().await;
    assert_eq!(cluster.held(), [("n2".to_owned(), 3), ("n3".to_owned(), 3)].into());
    let stayed = before.iter().filter(|lease| lease.holder.as_ref().unwrap().host != "n1");
    for lease in stayed {
        assert!(cluster.addresses().contains(lease), "{lease:?} moved without need");
    }

    // It comes back in a later epoch.
    cluster.ended.insert("n1".into(), LeaseEnd { is_back: true, ..end });
    cluster.pass(Duration::from_secs(30));
    cluster.hear("n1").await;
    cluster.rest().await;
    assert_eq!(cluster.held().get("n1"), None, "it may go again");
    cluster.pass(Duration::from_secs(11));
    cluster.settle().await;
    let moving =
        cluster.addresses().into_iter().filter(|lease| lease.wanted.as_deref() == Some("n1")).count();
    assert_eq!(moving, 1, "one by one");
    // It holds by its former epoch in this test, which is over: it is written with the next one.
    cluster.ended.clear();
    cluster.rest().await;
    assert_eq!(cluster.held(), HOSTS.map(|host| (host.to_owned(), 2)).into());
}

#[tokio::test]
async fn a_host_that_doesn_t_take_an_address_is_passed_over_and_one_that_leaves_too() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({})).await;
    cluster.settle().await;
    let first = cluster.addresses().pop().unwrap().wanted.unwrap();
    cluster.pass(Duration::from_secs(3));
    cluster.settle().await;
    let second = cluster.addresses().pop().unwrap().wanted.unwrap();
    assert_ne!(first, second);
    cluster.rest().await;
    let lease = cluster.addresses().pop().unwrap();
    assert_eq!(lease.holder.as_ref().unwrap().host, second);
    cluster.say(&second, &lease, &lease.declined(&second)).await.unwrap();
    cluster.rest().await;
    assert_ne!(cluster.addresses().pop().unwrap().holder.unwrap().host, second);
    // An administrator has one hold none.
    let now = cluster.addresses().pop().unwrap().holder.unwrap().host;
    let excluded =
        json!({"metadata": {"labels": {"node.kubernetes.io/exclude-from-external-load-balancers": ""}}});
    cluster.patch("v1", "Node", "", &now, "", excluded).await.unwrap();
    cluster.rest().await;
    assert_ne!(cluster.addresses().pop().unwrap().holder.unwrap().host, now);
}

#[tokio::test]
async fn only_hosts_that_say_that_they_take_an_address_are_asked_for_it() {
    let mut cluster = lending(1).await;
    let takes = |said: &str| json!({"metadata": {"annotations": {objects::TAKES_ADDRESSES: said}}});
    // One without a pool, one with another, and one that leaves once it holds the address.
    for (host, said) in [("n1", ""), ("n2", "10.73.0.1-10.73.0.9"), ("n3", "10.73.0.200-10.73.0.209")] {
        cluster.patch("v1", "Node", "", host, "", takes(said)).await.unwrap();
    }
    cluster.balance("web", json!({})).await;
    cluster.settle().await;
    for _ in 0..3 {
        assert_eq!(cluster.addresses().pop().unwrap().wanted.as_deref(), Some("n3"));
        cluster.pass(Duration::from_secs(3));
        cluster.settle().await;
    }
    cluster.rest().await;
    cluster.patch("v1", "Node", "", "n3", "", takes("")).await.unwrap();
    cluster.rest().await;
    let lease = cluster.addresses().pop().unwrap();
    assert_eq!((lease.wanted, lease.holder), (None, None), "nobody takes it");
    cluster.patch("v1", "Node", "", "n1", "", takes("10.73.0.200-10.73.0.200")).await.unwrap();
    cluster.rest().await;
    assert_eq!(cluster.addresses().pop().unwrap().holder.unwrap().host, "n1");
}

#[tokio::test]
async fn a_host_s_clock_says_nothing_about_how_long_it_has_been_asked() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({})).await;
    cluster.rest().await;
    // A host whose clock is an hour off gives the address up: the next offer is as old as the leader has seen it.
    let lease = cluster.addresses().pop().unwrap();
    let holder = lease.holder.as_ref().unwrap().host.clone();
    let user = format!("system:node:{holder}");
    let wrong = cluster.now.wall - Duration::from_secs(3600);
    let next = AddressLease { wanted: Some(holder.clone()), ..lease.released() };
    cluster.writer.write(&user, lease.change(&next, wrong)).await.unwrap();
    cluster.settle().await;
    cluster.pass(Duration::from_millis(2900));
    cluster.settle().await;
    assert_eq!(cluster.addresses().pop().unwrap().wanted.as_deref(), Some(&*holder), "it has time");
    cluster.pass(Duration::from_millis(100));
    cluster.settle().await;
    assert_ne!(cluster.addresses().pop().unwrap().wanted, Some(holder.clone()));
    // Who leads next counts anew.
    let asked = cluster.addresses().pop().unwrap().wanted;
    cluster.take_over();
    cluster.pass(Duration::from_millis(2900));
    cluster.settle().await;
    assert_eq!(cluster.addresses().pop().unwrap().wanted, asked);
}

#[tokio::test]
async fn an_address_whose_traffic_stays_local_is_held_where_an_endpoint_is() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({"externalTrafficPolicy": "Local"})).await;
    cluster.rest().await;
    let lease = cluster.addresses().pop().unwrap();
    assert_eq!((lease.wanted, cluster.address_of("web").as_deref()), (None, Some("10.73.0.200")));
    for host in ["n3", "n1"] {
        let slice = json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
            "metadata": {"name": "by-hand", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
            "endpoints": [{"addresses": ["10.244.3.7"], "conditions": {"ready": true}, "nodeName": host}],
            "ports": [{"port": 8080}],
        });
        cluster.create(slice).await;
        cluster.rest().await;
        assert_eq!(cluster.addresses().pop().unwrap().holder.unwrap().host, host);
        cluster.delete("discovery.k8s.io/v1", "EndpointSlice", "default", "by-hand", Delete::default()).await;
        cluster.rest().await;
        assert_eq!(cluster.addresses().pop().unwrap().holder, None);
    }
}

#[tokio::test]
async fn a_host_writes_of_its_own_addresses_alone() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({})).await;
    cluster.settle().await;
    let lease = cluster.addresses().pop().unwrap();
    let wanted = lease.wanted.clone().unwrap();
    let other = HOSTS.into_iter().find(|host| *host != wanted).unwrap();
    let by = |host: &str| AddressHolder { host: host.to_owned(), epoch: 7, process: 1 };
    assert_eq!(cluster.say(other, &lease, &lease.taken(by(other))).await, Err(403));
    assert_eq!(cluster.say(&wanted, &lease, &lease.taken(by(other))).await, Err(403));
    assert_eq!(cluster.say(&wanted, &lease, &lease.taken(by(&wanted))).await, Ok(()));
    assert_eq!(cluster.say(&wanted, &lease, &lease.released()).await, Err(409), "it is another version");
}

#[tokio::test]
async fn a_host_whose_node_is_deleted_has_its_addresses_until_its_lease_must_be_over() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({})).await;
    cluster.rest().await;
    let holder = |cluster: &Cluster| cluster.addresses().pop().unwrap().holder.map(|holder| holder.host);
    let host = holder(&cluster).unwrap();
    cluster.delete("v1", "Node", "", &host, Delete::default()).await;
    cluster.settle().await;
    let wanted = cluster.addresses().pop().unwrap().wanted.unwrap();
    assert_ne!(wanted, host, "it is asked for the address");
    cluster.pass(Duration::from_millis(1900));
    cluster.settle().await;
    assert_eq!(holder(&cluster).as_ref(), Some(&host), "it may hold its lease");
    // The next leader can't know for how long the Node has been gone.
    cluster.take_over();
    cluster.settle().await;
    cluster.pass(Duration::from_millis(1900));
    cluster.settle().await;
    assert_eq!(holder(&cluster).as_ref(), Some(&host), "counted anew");
    cluster.pass(Duration::from_millis(100));
    cluster.settle().await;
    assert_eq!(holder(&cluster), None);
    cluster.rest().await;
    assert!(holder(&cluster).is_some_and(|other| other != host));
}

#[tokio::test]
async fn a_member_whose_node_is_deleted_has_its_addresses_for_as_long_as_the_members_speak_of_it() {
    let mut cluster = lending(1).await;
    cluster.balance("web", json!({})).await;
    cluster.rest().await;
    let holder = |cluster: &Cluster| cluster.addresses().pop().unwrap().holder;
    let held = holder(&cluster).unwrap();
    let before = LeaseEnd { epoch: held.epoch - 1, is_back: true, since: cluster.now.instant };
    cluster.ended.insert(held.host.clone(), before);
    cluster.delete("v1", "Node", "", &held.host, Delete::default()).await;
    for _ in 0..5 {
        cluster.settle().await;
        cluster.pass(Duration::from_secs(2));
    }
    cluster.settle().await;
    assert_eq!(holder(&cluster).as_ref(), Some(&held), "it is heard, and may hold its lease");
    // It is removed from the members, and nobody hears it any more.
    cluster.ended.clear();
    for is_held in [true, false] {
        cluster.pass(Duration::from_secs(2));
        cluster.settle().await;
        assert_eq!(holder(&cluster).is_some(), is_held);
    }
}
