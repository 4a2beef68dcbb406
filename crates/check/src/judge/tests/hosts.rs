//! What is wrong with a host that runs, and with the hosts together.

use super::*;

fn cluster(facts: &mut Facts) -> &mut Cluster {
    facts.cluster.as_mut().unwrap().as_mut().unwrap()
}

fn peer<'a>(facts: &'a mut Facts, name: &str) -> &'a mut Peer {
    cluster(facts).peers.get_mut(name).unwrap()
}

fn lose(facts: &mut Facts, name: &str) {
    let peer = peer(facts, name);
    (peer.way, peer.health, peer.lease) =
        (Err("refused".into()), Err("refused".into()), Err("refused".into()));
}

fn skew(facts: &mut Facts, least: i64, most: i64) {
    peer(facts, "n2").health.as_mut().unwrap().skew = Some(Skew { least, most });
}

fn certificate(facts: &mut Facts) -> &mut Certificate {
    &mut facts.identity.as_mut().unwrap().certificates[1]
}

const DAY: u64 = 24 * 60 * 60;

#[test]
fn what_is_wrong_with_a_running_host_is_found() {
    each_is_said(
        running,
        &[
            (
                |f| f.listening.as_mut().unwrap().retain(|socket| socket.at.port() != 10250),
                "fault ports: nobody listens on TCP port 10250 (ports.agent)",
                "read its log",
            ),
            (
                |f| {
                    f.listening.as_mut().unwrap()[0].holder =
                        Some(Holder { pid: 9, name: "nginx".into(), is_ours: false })
                },
                "fault ports: TCP port 6443 (ports.api) is held by nginx (process 9)",
                "stop nginx",
            ),
            (
                |f| certificate(f).until = f_now() - Duration::from_secs(1),
                "fault ends: n1.crt is over",
                "renews its own",
            ),
            (
                |f| certificate(f).until = f_now() + Duration::from_secs(9 * DAY),
                "warning ends: n1.crt ends in 9 days",
                "renews its own",
            ),
            (
                |f| certificate(f).is_valid = Some(false),
                "fault ends: n1.crt is not valid yet",
                "set the clock",
            ),
            (|f| certificate(f).is_signed = Some(false), "fault authority: n1.crt isn't signed", ""),
            (
                |f| f.identity.as_mut().unwrap().open_keys.push("/p/n1.key".into()),
                "warning keys: /p/n1.key",
                "chmod 600 /p/n1.key",
            ),
            (
                |f| f.identity.as_mut().unwrap().broken.push("n1.key: gone".into()),
                "fault files: n1.key: gone",
                "copy",
            ),
            (
                |f| f.cluster = Some(Err("n1.key: gone".into())),
                "unseen hosts: nobody can be asked: n1.key",
                "or check as root",
            ),
        ],
    );
    // Its own addresses, and its routes to the pods of others, are no foreigners.
    let mut facts = running();
    facts.network.links.as_mut().unwrap()[0]
        .addresses
        .extend(["10.96.0.10/32", "10.244.1.5/32"].map(|own| own.parse::<ipnet::IpNet>().unwrap()));
    facts.network.links.as_mut().unwrap()[1].addresses.push("10.73.0.100/32".parse().unwrap());
    let route =
        Route { to: "10.244.2.0/24".parse().unwrap(), link: "eth0".into(), by: "10.73.0.2".parse().ok() };
    facts.network.routes.as_mut().unwrap().push(route);
    assert_eq!(said(&facts), [""; 0]);
}

fn f_now() -> SystemTime {
    good().clock.now
}

#[test]
fn what_would_break_the_cluster_is_told() {
    let told = |lost: &[&str]| {
        let mut facts = running();
        lost.iter().for_each(|name| lose(&mut facts, name));
        said(&facts)
    };
    let one = told(&["n3"]);
    assert_eq!(
        one,
        [
            "fault hosts: n3 doesn't answer at 10.73.0.3:6443: refused; start it, or let TCP port 6443 through between the hosts",
            "warning margin: 2 of 3 members are ready: one more loss and the cluster stops; bring n3 back",
        ]
    );
    let two = told(&["n2", "n3"]);
    assert_eq!(
        two.last().unwrap(),
        "fault margin: 1 of 3 members are ready, and 2 are a majority: the cluster takes no writes; bring n2 and n3 back"
    );
    // Two members bear no loss, one says so without a warning, five bear two.
    let of = |members: usize| {
        let mut facts = running();
        let like = peer(&mut facts, "n1").clone();
        cluster(&mut facts).peers = (1..=members).map(|n| (format!("n{n}"), like.clone())).collect();
        let findings = judge(&facts).into_iter().find(|finding| finding.check == "margin").unwrap();
        (findings.grade, findings.what)
    };
    assert_eq!(of(1).0, Grade::Note);
    assert_eq!(of(2), (Grade::Warning, "2 members are ready: one loss and the cluster stops".into()));
    assert_eq!(of(5), (Grade::Ok, "5 of 5 members are ready: the cluster bears the loss of 2".into()));
}

#[test]
fn what_is_wrong_among_the_hosts_is_found() {
    each_is_said(
        running,
        &[
            (|f| skew(f, 4000, 5100), "warning skew: n2's clock is 4.0 s ahead of this host's", "chrony"),
            (|f| skew(f, -90_000, -88_000), "fault skew: n2's clock is 88.0 s behind this host's", "tokens"),
            (
                |f| peer(f, "n2").way = Ok(Way { time: ms(1), segment: Some(1398) }),
                "warning mtu: the way to n2 carries packets of about 1450 bytes, and eth0 sends 1500",
                "same MTU",
            ),
            (
                |f| peer(f, "n2").way = Ok(Way { time: ms(14), segment: None }),
                "warning sync: ",
                "a message of 14 ms is 170 ms",
            ),
            (
                |f| cluster(f).virtual_api = Err("no answer".into()),
                "fault virtual-address: nobody of this cluster answers at the virtual address, 10.73.0.100:6443: no answer",
                "",
            ),
            (|f| cluster(f).virtual_api = Ok(500), "fault virtual-address: ", "code 500"),
            (
                |f| {
                    let node = &mut cluster(f).nodes.as_mut().unwrap()[1];
                    (node.is_ready, node.why) = (false, "NodeStatusUnknown silent".into());
                },
                "fault nodes: Node n2 is not Ready: NodeStatusUnknown silent",
                "kubectl describe node n2",
            ),
            (|f| drop(cluster(f).nodes.as_mut().unwrap().pop()), "fault nodes: there is no Node n3", ""),
            (
                |f| {
                    cluster(f).sees_all_nodes = false;
                    cluster(f).nodes.as_mut().unwrap().truncate(1);
                },
                "unseen other-nodes: ",
                "--kubeconfig FILE",
            ),
            (|f| cluster(f).nodes = Err("no".into()), "unseen nodes: ", "no"),
            (
                |f| {
                    cluster(f)
                        .nodes
                        .as_mut()
                        .unwrap()
                        .iter_mut()
                        .take(2)
                        .for_each(|node| node.machine_id = "m".into())
                },
                "warning machine-id: n1 and n2 have the same /etc/machine-id",
                "systemd-machine-id-setup",
            ),
            (|f| peer(f, "n2").lease = Ok(Lease::default()), "warning leases: n2 holds no lease", "UDP"),
            (
                |f| peer(f, "n2").lease = Ok(Lease { seconds: 1.0, fenced: vec!["n9".into()] }),
                "warning leases: n2 says that n9 is fenced",
                "",
            ),
            (
                |f| peer(f, "n1").lease = Err("it may not".into()),
                "unseen leases: leases can't be seen: it may not",
                "--kubeconfig",
            ),
        ],
    );
    let mut facts = running();
    let says = "[+]ping ok\n[-]etcd failed: the store has no leader\nreadyz check failed\n".to_owned();
    peer(&mut facts, "n2").health = Ok(Health { code: 500, says, skew: None });
    assert!(
        said(&facts)[0].starts_with("fault hosts: n2 is not ready: etcd failed: the store has no leader; "),
        "{:?}",
        said(&facts)
    );
}
