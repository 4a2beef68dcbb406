//! Predictions beside what was measured.

use serde_json::Value;

use crate::{File, Kind, Level, Report, predict};

macro_rules! files {
    ($of:literal) => {
        [
            ("etcd.yaml", include_str!(concat!("../tests/peers/", $of, "/etcd.yaml"))),
            ("haproxy.cfg", include_str!(concat!("../tests/peers/", $of, "/haproxy.cfg"))),
            ("keepalived.conf", include_str!(concat!("../tests/peers/", $of, "/keepalived.conf"))),
            ("kube-apiserver.args", include_str!(concat!("../tests/peers/", $of, "/kube-apiserver.args"))),
            (
                "kube-controller-manager.args",
                include_str!(concat!("../tests/peers/", $of, "/kube-controller-manager.args")),
            ),
            ("kube-proxy.args", include_str!(concat!("../tests/peers/", $of, "/kube-proxy.args"))),
            ("kubelet.yaml", include_str!(concat!("../tests/peers/", $of, "/kubelet.yaml"))),
        ]
    };
}
/// Configurations of real clusters, and what a power cut did to them: one run each.
const PEERS: [(&str, [(&str, &str); 7]); 3] =
    [("seed", files!("seed")), ("default", files!("default")), ("tuned", files!("tuned"))];

/// What each measured number is a measurement of.
const CLOCKS: [(&str, &str); 4] = [
    ("api_first_answer_s", "API answers again"),
    ("api_steady_s", "API answers every time"),
    ("service_steady_s", "service answers every time"),
    ("new_pod_answers_s", "new pod answers"),
];

/// Numbers of a single run that chance made, with how that is known:
/// - `seed` and `default` have the same timers up to the API's first answer, which took 5.09 s in one and 3.08 s in the other;
/// - in `default` the new pod shows that the node was NotReady after 51 s, but one kube-proxy sent callers to the lost pod for a
///   minute longer: upstream has no timer of a minute between them.
const BY_CHANCE: [(&str, &str); 2] = [("seed", "api_first_answer_s"), ("default", "service_steady_s")];

fn peer(name: &str) -> Report {
    let (_, files) = PEERS.iter().find(|(of, _)| *of == name).unwrap();
    let file = |(path, text): &(&str, &str)| File { path: format!("{name}/{path}"), text: (*text).into() };
    predict(&files.iter().map(file).collect::<Vec<_>>())
}

fn typical(report: &Report, clock: &str) -> u64 {
    report
        .clocks
        .iter()
        .find(|of| of.name == clock)
        .unwrap_or_else(|| panic!("{clock}: {:?}", report.clocks))
        .span
        .typical_ms
}

/// Both differ by less than 30 % of what was measured.
fn agrees(predicted_ms: u64, measured_ms: f64) -> bool {
    (predicted_ms as f64 - measured_ms).abs() <= 0.3 * measured_ms
}

#[test]
fn predictions_agree_with_what_power_cuts_did_to_real_clusters() {
    let measured: Value = serde_json::from_str(include_str!("../tests/peers/measured.json")).unwrap();
    for (name, _) in PEERS {
        let report = peer(name);
        assert_eq!((report.kind, report.members), (Kind::Kubernetes, 3), "{name}");
        assert_eq!((&report.not_understood[..], &report.unknown_files[..]), (&[][..], &[][..]), "{name}");
        for (key, clock) in CLOCKS {
            let (predicted, was) = (typical(&report, clock), measured[name][key].as_f64().unwrap() * 1000.0);
            let by_chance = BY_CHANCE.contains(&(name, key));
            assert_eq!(
                agrees(predicted, was),
                !by_chance,
                "{name}: {clock}: {predicted} ms predicted, {was} ms measured"
            );
        }
    }
}

#[test]
fn what_chance_made_is_known_by_the_run_itself() {
    let clock = |report: &Report| report.clocks[0].clone();
    assert_eq!(clock(&peer("seed")), clock(&peer("default")), "the same timers");
    let measured: Value = serde_json::from_str(include_str!("../tests/peers/measured.json")).unwrap();
    let new_pod = measured["default"]["new_pod_answers_s"].as_f64().unwrap() * 1000.0;
    let report = peer("default");
    let started =
        report.phases.iter().find(|phase| phase.name == "a new pod starts").unwrap().takes.typical_ms;
    let not_ready = report.phases.iter().find(|phase| phase.name == "the node is NotReady").unwrap().ends;
    assert!(agrees(not_ready.typical_ms, new_pod - 300_000.0 - started as f64), "{not_ready:?}");
}

#[test]
fn what_dominates_is_named_with_what_to_change() {
    let report = peer("tuned");
    let service = report.clocks.iter().find(|clock| clock.name == "service answers every time").unwrap();
    assert_eq!(service.dominated_by, "kube-proxy gives up its dead connection");
    assert_eq!((service.span.min_ms, service.span.max_ms), (15_000, 45_000), "measured: 29.6 s");
    let first = &report.advice[0];
    assert!(first.change.contains("HTTP2_READ_IDLE_TIMEOUT_SECONDS: 2.00 s instead of 30.0 s"), "{first:?}");
    let gain = first.gains.iter().find(|gain| gain.clock == "service answers every time").unwrap();
    assert!(gain.after.typical_ms < 6000, "{gain:?}");
    for (name, dominant, change) in [
        (
            "default",
            "the lost pod is tolerated",
            "--default-unreachable-toleration-seconds: 2.00 s instead of 300.0 s",
        ),
        ("seed", "the lost pod is tolerated", "`inter 500ms fall 2` instead of `inter 60s fall 3`"),
    ] {
        let report = peer(name);
        assert_eq!(report.clocks[3].dominated_by, dominant, "{name}");
        assert!(report.advice.iter().any(|step| step.change.contains(change)), "{name}: {:?}", report.advice);
    }
    // With all that is advised the times are those of an expert, without what an expert overlooks.
    let last = |clock: &str| {
        let mut gains = report.advice.iter().flat_map(|step| &step.gains).filter(|gain| gain.clock == clock);
        gains.next_back().unwrap().after.typical_ms
    };
    assert!(last("new pod answers") < 10_000, "{:?}", report.advice);
}

#[test]
fn what_is_wrong_with_the_peers_is_named() {
    for (name, fatal) in [("seed", 2), ("default", 1), ("tuned", 1)] {
        let report = peer(name);
        let of = |level: Level| report.findings.iter().filter(move |finding| finding.level == level);
        let all: Vec<&str> = of(Level::Fatal).map(|finding| finding.what.as_str()).collect();
        assert_eq!(all.len(), fatal, "{name}: {all:?}");
        assert!(!report.highly_available);
        assert!(
            all.iter().any(|what| what.contains("no track script") && what.contains("nopreempt")),
            "{all:?}"
        );
        assert_eq!(
            all.iter().any(|what| what.contains("counts as dead only after that")),
            name == "seed",
            "{all:?}"
        );
        assert!(
            of(Level::Risk)
                .any(|finding| finding.what.contains("10.0.0.100, which every host but one lacks")),
            "{name}"
        );
    }
}

fn own(datastore: Option<&str>) -> Report {
    let config = |host: u8| {
        let peers: Value = serde_json::json!({"n1": "10.73.0.1", "n2": "10.73.0.2", "n3": "10.73.0.3"});
        let mut config = serde_json::json!({
            "clusterId": "0b5c1e9e-6c2f-4f86-9df0-1f1e4b2b8a10", "name": format!("n{host}"), "address": format!("10.73.0.{host}"),
            "hostCidr": "10.73.0.0/24", "peers": peers, "podCidr": format!("10.244.{host}.0/24"), "clusterCidr": "10.244.0.0/16",
            "serviceCidr": "10.96.0.0/16", "virtualAddress": "10.73.0.100", "net": {"kind": "netns", "link": "eth0"},
            "dataDir": "/d", "begunFile": "/b", "timelineFile": "/t", "pkiDir": "/p"});
        if let Some(endpoint) = datastore {
            config["datastore"] = serde_json::json!({"endpoints": [endpoint], "prefix": "/x", "ca": "/ca"});
        }
        File { path: format!("c/n{host}/config.json"), text: config.to_string() }
    };
    predict(&[config(1), config(2), config(3)])
}

/// The measured columns of a row of SPECIFICATION.md, the first one under a title, in milliseconds.
fn specified(title: &str, row: &str) -> Vec<f64> {
    let page = include_str!("../../../SPECIFICATION.md");
    let (_, section) = page.split_once(&format!("## {title}\n")).unwrap();
    let line = section.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
    let cells = line.split('|').skip(3).take(2);
    let number = |cell: &str| {
        let mut words = cell.split_whitespace();
        let number: f64 = words.next().unwrap().parse().unwrap();
        number * if words.next().unwrap().starts_with("ms") { 1.0 } else { 1000.0 }
    };
    cells.map(number).collect()
}

#[test]
fn predictions_agree_with_holdfasts_own_drills() {
    for (title, report) in
        [("A power cut of the leader", own(None)), ("On an etcd", own(Some("https://10.0.0.9:2379")))]
    {
        assert!(report.highly_available && report.unknown_files.is_empty(), "{report:?}");
        assert_eq!(
            (report.kind, &report.hosts[..]),
            (Kind::Holdfast, &["n1", "n2", "n3"].map(String::from)[..])
        );
        for (row, clock) in [
            ("API answers again", "API answers again"),
            ("service answers again", "service answers again"),
            ("a new pod answers", "new pod answers"),
        ] {
            for was in specified(title, &format!("{row}, median")) {
                let predicted = typical(&report, clock);
                assert!(
                    agrees(predicted, was),
                    "{title}: {clock}: {predicted} ms predicted, {was} ms measured"
                );
            }
            let worst = report.clocks.iter().find(|of| of.name == clock).unwrap().span.max_ms as f64;
            for was in specified(title, &format!("{row}, slowest")) {
                // On an etcd slow hosts of a busy machine took longer than etcd's own times.
                let margin = if title == "On an etcd" { 1.3 } else { 1.0 };
                assert!(
                    was <= worst * margin,
                    "{title}: {clock}: {worst} ms at worst predicted, {was} ms measured"
                );
            }
        }
    }
    assert!(own(None).advice.is_empty(), "the defaults are as short as they may be: {:?}", own(None).advice);
}

#[test]
fn a_report_for_people_says_all_of_it() {
    let text = peer("tuned").to_text();
    for words in [
        "Power cut of the host that leads and holds the address (Kubernetes, 3 members)",
        "  service answers every time      15.0 s    30.0 s    45.0 s   kube-proxy gives up its dead connection",
        "What to change, what helps most first",
        "Not highly available, because",
        "keepalived.conf:4: VI_1 has no track script",
        "files of 1 of 3 hosts are there",
    ] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let longest = text.lines().map(|line| line.chars().count()).max().unwrap();
    assert!(longest <= 118, "{longest}:\n{text}");
    let json: Value = serde_json::from_str(&peer("tuned").to_json().unwrap()).unwrap();
    assert_eq!(json["clocks"][2]["typical_ms"], 30_000);
    assert_eq!((&json["version"], &json["highly_available"]), (&1.into(), &false.into()));
}
