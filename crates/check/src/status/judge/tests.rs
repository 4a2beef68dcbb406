use objects::{AddressHolder, AddressLease, FENCED_EPOCH, FENCING, Fencing, LEASE_EPOCH};

use super::*;
use crate::facts::Node;
use crate::finding::Grade;
use crate::status::Status;
use crate::status::told::{CertificateSays, ClusterSays, LeaseSays, MemberSays};

const DAYS: i64 = 24 * 60 * 60;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn says(leads: bool) -> HostSays {
    let file = |file: &str, days: i64| CertificateSays { file: file.into(), until: at(days * DAYS) };
    HostSays {
        version: "0.1.0".into(),
        leader: Some("n1".into()),
        leads,
        revision: 5_000,
        caught_up_ms: Some(0.5),
        lease: LeaseSays { seconds: 1.45, epoch: 7 },
        certificates: vec![file("ca.crt", 3_650), file("host.crt", 365)],
    }
}

fn fencing(said: &[(&str, &str)]) -> Fencing {
    Fencing::of(Some(&said.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()))
}

/// A cluster of so many hosts in which all is well; n1 leads.
fn well(hosts: usize) -> Facts {
    let names: Vec<String> = (1..=hosts).map(|number| format!("n{number}")).collect();
    let member = |name: &String| MemberSays {
        name: name.clone(),
        address: "10.73.0.1".parse().unwrap(),
        is_learner: false,
        has_joined: true,
    };
    let node = |name: &String| Node {
        name: name.clone(),
        is_ready: true,
        fencing: fencing(&[(FENCING, "lease"), (LEASE_EPOCH, "7")]),
        ..Node::default()
    };
    Facts {
        now: at(0),
        server: "https://127.0.0.1:6443".into(),
        unreached: Vec::new(),
        cluster: ClusterSays {
            asked: "n1".into(),
            hosts: names
                .iter()
                .map(|name| (name.clone(), HostAnswer::Says(Box::new(says(name == "n1")))))
                .collect(),
            members: Some(names.iter().map(member).collect()),
            virtual_api: "10.73.0.100:6443".parse().unwrap(),
        },
        nodes: Ok(names.iter().map(|name| (name.clone(), node(name))).collect()),
        addresses: Ok(Vec::new()),
        own_certificate: Some(at(365 * DAYS)),
    }
}

fn says_of<'a>(facts: &'a mut Facts, name: &str) -> &'a mut HostSays {
    let Some(HostAnswer::Says(says)) = facts.cluster.hosts.get_mut(name) else {
        panic!("{name} says nothing")
    };
    says
}

fn node_of<'a>(facts: &'a mut Facts, name: &str) -> &'a mut Node {
    facts.nodes.as_mut().unwrap().get_mut(name).unwrap()
}

fn silence(facts: &mut Facts, name: &str) {
    facts.cluster.hosts.insert(name.into(), HostAnswer::Silent(8.4));
    node_of(facts, name).is_ready = false;
}

/// What is worse than a note.
fn complaints(facts: &Facts) -> Vec<(&'static str, Grade, String)> {
    let findings = judge(facts).into_iter().filter(|finding| finding.grade > Grade::Note);
    findings.map(|finding| (finding.check, finding.grade, finding.what)).collect()
}

#[test]
fn a_cluster_in_which_all_is_well_has_nothing_to_complain_of() {
    for hosts in [1, 3, 5] {
        assert_eq!(complaints(&well(hosts)), [], "{hosts}");
    }
    let findings = judge(&well(3));
    assert_eq!(findings.len(), 2, "{findings:?}");
    assert_eq!(findings[0].what, "3 of 3 members are ready: the cluster bears the loss of 1");
    let mut watched = well(3);
    node_of(&mut watched, "n2").fencing = fencing(&[(FENCING, "lease,watchdog"), (LEASE_EPOCH, "7")]);
    let findings = judge(&watched);
    let [_, lease, watchdog] = &*findings else { panic!("{findings:?}") };
    assert!(lease.what.starts_with("n1 and n3 are fenced by lease: that doesn't cover a kernel that hangs"));
    assert!(watchdog.what.starts_with("n2 is fenced by watchdog: that doesn't cover a virtual machine"));
    let alone = judge(&well(1));
    assert!(alone[0].what.starts_with("there is one member: when it stops, the cluster stops"), "{alone:?}");
}

#[test]
fn each_thing_that_is_wrong_is_told_once_and_by_its_name() {
    type Change = fn(&mut Facts);
    type Expected = &'static [(&'static str, Grade, &'static str)];
    let cases: [(&str, Change, Expected); 18] = [
        (
            "a host is off",
            |facts| silence(facts, "n3"),
            &[
                ("margin", Grade::Warning, "2 of 3 members are ready: one more loss and the cluster stops"),
                ("hosts", Grade::Fault, "n3 is silent: no heartbeat has come from it for 8 s"),
            ],
        ),
        (
            "its API hangs",
            |facts| {
                drop(
                    facts
                        .cluster
                        .hosts
                        .insert("n3".into(), HostAnswer::Fails("no answer within 1500 ms".into())),
                )
            },
            &[
                ("margin", Grade::Warning, "2 of 3 members are ready: one more loss and the cluster stops"),
                (
                    "hosts",
                    Grade::Fault,
                    "n3 is alive, and its API doesn't tell how it is: no answer within 1500 ms",
                ),
            ],
        ),
        (
            "nobody leads",
            |facts| {
                for name in ["n2", "n3"] {
                    silence(facts, name);
                }
                let n1 = says_of(facts, "n1");
                (n1.leads, n1.leader, n1.caught_up_ms, n1.lease.seconds) = (false, None, None, 0.0);
            },
            &[
                (
                    "margin",
                    Grade::Fault,
                    "1 of 3 members are ready, and 2 are a majority: the cluster takes no writes",
                ),
                (
                    "leader",
                    Grade::Fault,
                    "nobody leads: the cluster takes no writes, and the API's virtual address is nobody's",
                ),
                ("hosts", Grade::Fault, "n2 is silent: no heartbeat has come from it for 8 s"),
                ("hosts", Grade::Fault, "n3 is silent: no heartbeat has come from it for 8 s"),
                (
                    "leases",
                    Grade::Warning,
                    "n1 holds no lease: no majority of the members hears it, and what must not run twice stops there",
                ),
            ],
        ),
        (
            "one follows another",
            |facts| says_of(facts, "n3").leader = Some("n2".into()),
            &[("leader", Grade::Warning, "n1 leads, and n3 still follows another one")],
        ),
        (
            "a member is added",
            |facts| {
                let members = facts.cluster.members.as_mut().unwrap();
                members[2].has_joined = false;
                facts.cluster.hosts.remove("n3");
            },
            &[
                ("margin", Grade::Warning, "2 of 3 members are ready: one more loss and the cluster stops"),
                ("members", Grade::Warning, "the member n3 was added, and has not come yet"),
            ],
        ),
        (
            "a disk hangs",
            |facts| {
                let n2 = says_of(facts, "n2");
                (n2.caught_up_ms, n2.revision) = (None, 4_988);
            },
            &[
                ("margin", Grade::Warning, "2 of 3 members are ready: one more loss and the cluster stops"),
                (
                    "lag",
                    Grade::Warning,
                    "n2 is 12 changes behind the leader, and didn't come up with it when it was asked: its disk or its network is slow",
                ),
            ],
        ),
        (
            "a disk is slow",
            |facts| says_of(facts, "n2").revision = 3_999,
            &[(
                "lag",
                Grade::Warning,
                "n2 is 1001 changes behind the leader: its disk or its network is slow",
            )],
        ),
        (
            "a host isn't Ready",
            |facts| {
                let node = node_of(facts, "n2");
                (node.is_ready, node.why) = (false, "KubeletNotReady no cgroups".into());
            },
            &[("nodes", Grade::Fault, "Node n2 is not Ready: KubeletNotReady no cgroups")],
        ),
        (
            "a host has no Node",
            |facts| drop(facts.nodes.as_mut().unwrap().remove("n2")),
            &[("nodes", Grade::Fault, "there is no Node n2")],
        ),
        (
            "a host is short of room",
            |facts| node_of(facts, "n2").troubles.push("DiskPressure".into()),
            &[("nodes", Grade::Warning, "Node n2 says DiskPressure: it takes no pods, or ends some")],
        ),
        (
            "a host is fenced",
            |facts| {
                node_of(facts, "n2").fencing =
                    fencing(&[(FENCING, "lease"), (LEASE_EPOCH, "7"), (FENCED_EPOCH, "7")]);
            },
            &[(
                "fenced",
                Grade::Warning,
                "n2 is fenced: its lease is over, and what must not run twice may run elsewhere by now",
            )],
        ),
        (
            "leases are over",
            |facts| {
                for name in ["n2", "n3"] {
                    says_of(facts, name).lease.seconds = 0.0;
                }
            },
            &[(
                "leases",
                Grade::Warning,
                "n2 and n3 hold no leases: no majority of the members hears them, and what must not run twice stops there",
            )],
        ),
        (
            "an address is nobody's",
            |facts| {
                facts.addresses = Ok(vec![AddressLease::new(
                    "10.73.0.192".parse().unwrap(),
                    "shop/web".into(),
                    Some("n2".into()),
                )]);
            },
            &[(
                "addresses",
                Grade::Warning,
                "nobody holds 10.73.0.192, the address of shop/web; n2 is to take it",
            )],
        ),
        (
            "a certificate ends",
            |facts| {
                says_of(facts, "n2").certificates[1].until = at(5 * DAYS + 1);
                says_of(facts, "n3").certificates[1].until = at(-1);
                facts.own_certificate = Some(at(DAYS + 7));
            },
            &[
                ("certificates", Grade::Fault, "host.crt on n3 is over"),
                ("certificates", Grade::Warning, "host.crt on n2 ends in 5 days"),
                ("certificates", Grade::Warning, "the kubeconfig's certificate ends in 1 day"),
            ],
        ),
        (
            "the authority ends",
            |facts| {
                for name in ["n1", "n2", "n3"] {
                    says_of(facts, name).certificates[0].until = at(60);
                }
            },
            &[("certificates", Grade::Fault, "ca.crt on n1, n2 and n3 ends today")],
        ),
        (
            "versions differ",
            |facts| says_of(facts, "n3").version = "0.2.0".into(),
            &[("versions", Grade::Warning, "versions differ: 0.1.0 on n1 and n2; 0.2.0 on n3")],
        ),
        (
            "what can't be read",
            |facts| {
                facts.nodes = Err("timed out".into());
                facts.addresses = Err("timed out".into());
            },
            &[
                ("nodes", Grade::Unseen, "Nodes can't be read: timed out"),
                ("addresses", Grade::Unseen, "who holds which address can't be read: timed out"),
            ],
        ),
        (
            "the first server is gone",
            |facts| facts.unreached.push(("https://10.73.0.100:6443".into(), "refused".into())),
            &[(
                "server",
                Grade::Warning,
                "https://10.73.0.100:6443, which the kubeconfig names, doesn't answer: refused",
            )],
        ),
    ];
    for (name, change, expected) in cases {
        let mut facts = well(3);
        change(&mut facts);
        let expected: Vec<_> =
            expected.iter().map(|(check, grade, what)| (*check, *grade, (*what).to_owned())).collect();
        assert_eq!(complaints(&facts), expected, "{name}");
    }
}

#[test]
fn two_members_bear_no_loss_and_learners_have_no_vote() {
    let expected =
        [("margin", Grade::Warning, "2 members are ready: one loss and the cluster stops".to_owned())];
    assert_eq!(complaints(&well(2)), expected);
    let mut facts = well(3);
    facts.cluster.members.as_mut().unwrap()[2].is_learner = true;
    assert_eq!(complaints(&facts), expected);
    facts.cluster.members = None;
    let findings = judge(&facts);
    assert_eq!(
        (findings[0].check, findings[0].grade),
        ("margin", Grade::Note),
        "the etcd's affair: {findings:?}"
    );
}

#[test]
fn what_is_shown_fits_and_tells_who_is_down() {
    let mut facts = well(3);
    silence(&mut facts, "n3");
    let web = AddressLease::new("10.73.0.192".parse().unwrap(), "shop/web".into(), None);
    facts.addresses = Ok(vec![web.taken(AddressHolder { host: "n2".into(), epoch: 7, process: 1 })]);
    let status = Status { findings: judge(&facts), facts };
    let expected = "\
3 hosts, of which 2 answer; n1 leads (as n1 tells it at https://127.0.0.1:6443)

HOST  STATE       ROLE    BEHIND  LEASE  FENCING  VERSION  ENDS IN
n1    Ready       leader  0       1.4 s  lease    0.1.0    365 d
n2    Ready       member  0       1.4 s  lease    0.1.0    365 d
n3    silent 8 s  member  ?       ?      lease    ?        ?

ADDRESS           OF        HELD BY
10.73.0.100:6443  the API   n1
10.73.0.192       shop/web  n2

warning 2 of 3 members are ready: one more loss and the cluster stops; bring n3
        back
fault   n3 is silent: no heartbeat has come from it for 8 s; start n3, or look
        at its network
note    n1, n2 and n3 are fenced by lease: that doesn't cover a kernel that
        hangs, or a machine that is paused and goes on later (docs/leases.md)
";
    assert_eq!(status.text(false), expected);
    assert!(!status.is_well());
    let coloured = status.text(true);
    assert!(coloured.contains("\x1b[31msilent 8 s\x1b[0m  member"), "{coloured:?}");
    let bare: String =
        coloured.split("\x1b[").map(|piece| piece.split_once('m').map_or(piece, |(_, rest)| rest)).collect();
    assert_eq!(bare.len(), expected.len(), "colours move nothing");
    let json = status.json();
    assert_eq!((&json["leader"], &json["isWell"]), (&"n1".into(), &false.into()));
    assert_eq!(json["hosts"][2]["state"], "silent 8 s");
    assert_eq!(json["hosts"][1]["caughtUpMs"], 0.5);
    assert_eq!(
        json["addresses"][1],
        serde_json::json!({"address": "10.73.0.192", "of": "shop/web", "holder": "n2"})
    );
}

#[test]
fn names_that_others_chose_command_no_terminal() {
    let mut facts = well(3);
    says_of(&mut facts, "n2").version = "\x1b[2J0.1.0\n".into();
    let status = Status { findings: judge(&facts), facts };
    assert!(!status.text(false).contains('\x1b'));
}

#[test]
fn a_host_says_the_same_to_another_version() {
    let said = serde_json::to_value(well(2).cluster).unwrap();
    assert_eq!(serde_json::from_value::<ClusterSays>(said.clone()).unwrap(), well(2).cluster);
    let mut more = said;
    more["hosts"]["n1"]["says"]["colour"] = "green".into();
    assert_eq!(serde_json::from_value::<ClusterSays>(more).unwrap(), well(2).cluster);
}
