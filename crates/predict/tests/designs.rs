//! Designs that look highly available: what is wrong with each is found, and a sound one is left in peace.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use predict::{File, Kind, Level, Report, predict};

const ETCD: &str = "name: NAME
initial-cluster: n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380,n3=https://10.0.0.3:2380
listen-peer-urls: https://ADDRESS:2380
heartbeat-interval: 100
election-timeout: 1000
";
const HAPROXY: &str = "defaults
  mode tcp
  timeout connect 500ms
  timeout client 10m
  timeout server 10m
  retries 3
  option redispatch 1
  default-server inter 500ms fall 2 rise 2
frontend api
  bind 10.0.0.100:8443
  default_backend apis
backend apis
  balance roundrobin
  server n1 10.0.0.1:6443 check
  server n2 10.0.0.2:6443 check
  server n3 10.0.0.3:6443 check
";
const KEEPALIVED: &str = "global_defs {
  vrrp_version 3
}
vrrp_script api {
  script \"/usr/bin/curl -fsk https://127.0.0.1:8443/livez\"
  interval 1
  fall 2
}
vrrp_instance VI_1 {
  state BACKUP
  interface eth0
  virtual_router_id 51
  priority PRIORITY
  advert_int 0.2
  virtual_ipaddress { 10.0.0.100/24 }
  track_script { api }
}
";
const NGINX: &str = "stream {
  upstream apis {
    server 10.0.0.1:6443 max_fails=1 fail_timeout=10s;
    server 10.0.0.2:6443 max_fails=1 fail_timeout=10s;
    server 10.0.0.3:6443 max_fails=1 fail_timeout=10s;
  }
  server { listen 10.0.0.100:8443; proxy_connect_timeout 500ms; proxy_pass apis; }
}
";

/// A change of one file on all hosts, or on one.
type Change<'a> = (&'a str, &'a str, &'a str);

fn files(changes: &[Change<'_>]) -> Vec<File> {
    let mut files = Vec::new();
    for host in 1..=3 {
        let mut add = |name: &str, text: &str| {
            let path = format!("n{host}/{name}");
            let text = text
                .replace("NAME", &format!("n{host}"))
                .replace("ADDRESS", &format!("10.0.0.{host}"))
                .replace("PRIORITY", &format!("{}", 150 - host));
            let text =
                changes.iter().filter(|(of, ..)| path.ends_with(of)).fold(text, |text, (of, from, to)| {
                    assert!(text.contains(from), "{of} has no {from}");
                    text.replace(from, to)
                });
            files.push(File { path, text });
        };
        add("etcd/etcd.yaml", ETCD);
        add("haproxy/haproxy.cfg", HAPROXY);
        add("keepalived/keepalived.conf", KEEPALIVED);
        add("sysctl.d/ha.conf", "net.ipv4.ip_nonlocal_bind = 1\n");
        add("kube-apiserver.args", "--etcd-servers=https://127.0.0.1:2379 --advertise-address=ADDRESS");
        add("kube-controller-manager.args", "--node-monitor-grace-period=50s");
    }
    files
}

fn fatal(report: &Report) -> Vec<String> {
    let of = report.findings.iter().filter(|finding| finding.level == Level::Fatal);
    of.map(|finding| format!("{}: {}", finding.place, finding.what)).collect()
}

fn said(report: &Report, level: Level, what: &str) -> bool {
    report.findings.iter().any(|finding| finding.level == level && finding.what.contains(what))
}

#[test]
fn a_sound_design_is_left_in_peace() {
    let report = predict(&files(&[]));
    assert!(report.highly_available, "{:?}", report.findings);
    let risks: Vec<_> = report.findings.iter().filter(|finding| finding.level == Level::Risk).collect();
    assert!(risks.is_empty(), "{risks:?}");
    assert_eq!((report.members, report.hosts.len()), (3, 3));
    assert!(report.unknown_files.is_empty() && report.not_understood.is_empty(), "{report:?}");
}

#[test]
fn what_makes_a_design_not_highly_available_is_found() {
    let track = "  track_script { api }\n";
    for (changes, what) in [
        (&[("etcd.yaml", ",n3=https://10.0.0.3:2380", "")][..], "two members: both are needed"),
        (&[("etcd.yaml", ",n2=https://10.0.0.2:2380,n3=https://10.0.0.3:2380", "")], "one member"),
        (
            &[
                ("etcd.yaml", "n2=https://10.0.0.2", "n2=https://10.0.0.1"),
                ("etcd.yaml", "n3=https://10.0.0.3", "n3=https://10.0.0.1"),
            ],
            "all members of etcd are on one host (10.0.0.1)",
        ),
        (
            &[("etcd.yaml", "n2=https://10.0.0.2", "n2=https://10.0.0.1")],
            "2 of 3 members of etcd are on one host",
        ),
        (&[("etcd.yaml", "election-timeout: 1000", "election-timeout: 400")], "etcd doesn't start"),
        (&[("n2/etcd/etcd.yaml", "n3=https", "n4=https")], "hosts name different members"),
        (&[("haproxy.cfg", "inter 500ms fall 2", "inter 60s fall 3")], "counts as dead only after that"),
        (&[("haproxy.cfg", "10.0.0.2:6443 check", "10.0.0.2:6443")], "server n2 has no `check`"),
        (
            &[("haproxy.cfg", "10.0.0.2", "10.0.0.1"), ("haproxy.cfg", "10.0.0.3", "10.0.0.1")],
            "the same host behind it 3 times",
        ),
        (
            &[("haproxy.cfg", "  server n2 10.0.0.2:6443 check\n  server n3 10.0.0.3:6443 check\n", "")],
            "one server behind it",
        ),
        (&[("ha.conf", "= 1", "= 0")], "can't start there"),
        (&[("keepalived.conf", track, "")], "no track script"),
        (&[("keepalived.conf", "interval 1", "interval 60")], "must fail 2 times"),
        (&[("keepalived.conf", "fall 2", "fall 2\n  weight -1")], "doesn't bring the priority below"),
        (
            &[
                ("keepalived.conf", "fall 2", "fall 2\n  weight -50"),
                ("keepalived.conf", "state BACKUP", "state BACKUP\n  nopreempt"),
            ],
            "with `nopreempt` nobody takes",
        ),
        (
            &[("n2/keepalived/keepalived.conf", "virtual_router_id 51", "virtual_router_id 52")],
            "different virtual_router_ids",
        ),
        (
            &[("n2/keepalived/keepalived.conf", "vrrp_version 3", "vrrp_version 2")],
            "some of the hosts of 10.0.0.100 speak VRRP 2",
        ),
        (
            &[
                ("keepalived.conf", "vrrp_version 3", "vrrp_version 2"),
                ("n2/keepalived/keepalived.conf", "advert_int 0.2", "advert_int 1"),
            ],
            "they ignore each other's announcements",
        ),
        (
            &[("n3/keepalived/keepalived.conf", "10.0.0.100", "10.0.0.101")],
            "the same virtual_router_id 51 on eth0",
        ),
        (&[("keepalived.conf", "10.0.0.100", "10.0.0.2")], "is n2's own address too"),
        (&[("n2/kube-apiserver.args", "10.0.0.2", "10.0.0.1")], "n1 and n2 say that 10.0.0.1 is their own"),
        (&[("kube-apiserver.args", "127.0.0.1", "10.0.0.1")], "every API server asks the same member"),
        (
            &[("kube-controller-manager.args", "=50s", "=50s --leader-elect=false")],
            "kube-controller-manager works on several hosts at once",
        ),
        (&[("kube-controller-manager.args", "=50s", "=9s")], "healthy ones too"),
        (
            &[("kube-controller-manager.args", "=50s", "=50s --leader-elect-lease-duration=5s")],
            "doesn't start with these times",
        ),
    ] {
        let report = predict(&files(changes));
        assert!(fatal(&report).iter().any(|told| told.contains(what)), "{what}: {:?}", fatal(&report));
        assert!(!report.highly_available, "{what}");
        assert!(report.to_text().contains("Not highly available, because"));
    }
}

#[test]
fn what_is_risky_is_found_and_no_more_than_that() {
    for (changes, what) in [
        (
            &[("etcd.yaml", "n3=https://10.0.0.3:2380", "n3=https://10.0.0.3:2380,n4=https://10.0.0.4:2380")]
                [..],
            "etcd has 4 members",
        ),
        (&[("etcd.yaml", "election-timeout: 1000", "election-timeout: 700")], "fewer than ten heartbeats"),
        (&[("haproxy.cfg", "  option redispatch 1\n", "")], "without `option redispatch`"),
        (
            &[("haproxy.cfg", "timeout connect 500ms", "timeout connect 10s")],
            "waits 10.0 s before another one is tried",
        ),
        (
            &[("haproxy.cfg", "defaults\n", "userlist a\n  user b insecure-password geheim\ndefaults\n")],
            "a secret stands there in clear",
        ),
        (&[("ha.conf", "net.ipv4.ip_nonlocal_bind", "net.ipv4.ip_forward")], "no file here says so"),
        (
            &[(
                "keepalived.conf",
                "interface eth0",
                "interface eth0\n  authentication {\n auth_type PASS\n auth_pass geheim\n }",
            )],
            "a password that VRRP 3",
        ),
        (&[("keepalived.conf", "state BACKUP", "state MASTER")], "two hosts begin as MASTER"),
        (&[("n2/keepalived/keepalived.conf", "priority 148", "priority 149")], "equal priorities"),
        (
            &[("n2/keepalived/keepalived.conf", "advert_int 0.2", "advert_int 1")],
            "how long a move takes depends",
        ),
        (&[("kube-controller-manager.args", "=50s", "=20s")], "two that are late are enough"),
    ] {
        let report = predict(&files(changes));
        assert!(said(&report, Level::Risk, what), "{what}: {:?}", report.findings);
        assert!(report.highly_available, "{what}: {:?}", fatal(&report));
        assert!(!report.to_text().contains("geheim"), "what is secret stays so");
    }
}

/// What kubeadm leaves on each of three hosts: each etcd names those that were there when it joined, and itself.
fn kubeadm() -> Vec<File> {
    let mut all = files(&[]);
    all.retain(|file| !file.path.ends_with("etcd.yaml"));
    let mut members = Vec::new();
    for host in 1..=3 {
        members.push(format!("n{host}=https://10.0.0.{host}:2380"));
        let state = if host == 1 { "" } else { "--initial-cluster-state=existing" };
        let text = format!(
            "apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: etcd\n    command: [etcd, --name=n{host}, \"--initial-cluster={}\", \
             \"--listen-peer-urls=https://10.0.0.{host}:2380\", \"{state}\"]\n",
            members.join(",")
        );
        all.push(File { path: format!("n{host}/etc/kubernetes/manifests/etcd.yaml"), text });
    }
    all
}

#[test]
fn a_cluster_of_kubeadm_is_left_in_peace_although_its_members_name_different_ones() {
    let report = predict(&kubeadm());
    assert!(report.highly_available, "{:?}", fatal(&report));
    assert_eq!((report.members, report.hosts.len()), (3, 3));
    let mut moved = kubeadm();
    let last = moved.last_mut().unwrap();
    last.text = last.text.replace("n1=https://10.0.0.1:", "n1=https://10.0.0.9:");
    assert!(fatal(&predict(&moved))[0].contains("n1 is at 10.0.0.1 for one and at 10.0.0.9 for another"));
}

#[test]
fn what_says_too_little_is_not_judged() {
    let of = |path: &str, text: &str| predict(&[File { path: path.into(), text: text.into() }]);
    for (path, text) in [
        ("sysctl.conf", "net.ipv4.ip_nonlocal_bind = 1\n"),
        ("sysctl.conf", "vm.swappiness = 1\n"),
        ("haproxy", "# nothing\n"),
        ("pki/apiserver.crt", include_str!("files/apiserver.crt")),
    ] {
        let report = of(path, text);
        assert_eq!(
            (report.kind, report.judged, report.highly_available),
            (Kind::Unknown, false, false),
            "{path}"
        );
    }
    for (path, text) in [
        ("kube-apiserver.args", "--etcd-servers=https://127.0.0.1:2379"),
        ("kube-controller-manager.args", "--node-monitor-grace-period=50s"),
        ("k3s.service.env", "K3S_URL=https://10.0.0.1:6443\nK3S_TOKEN=hush\n"),
    ] {
        let report = of(path, text);
        assert!(
            !report.judged && !report.highly_available && fatal(&report).is_empty(),
            "{path}: {report:?}"
        );
        assert!(report.to_text().contains("can't be judged from these files"), "{}", report.to_text());
    }
}

#[test]
fn nothing_secret_is_repeated_however_it_stands_there() {
    let etcd = "name: n1\ninitial-cluster: a=https://user:geheim@10.0.0.1:2380,b=https://user:ge/geheim@10.0.0.1:2380\n";
    let keepalived = "auth_pass geheim\nvrrp_instance a {\n authentication {\n auth_type PASS\n auth_pass ab}geheim\n }\n}\n";
    let nginx =
        "stream { upstream a { server 10.0.0.1:6443 token=geheim; } server { listen 6443; proxy_pass a; } }";
    for (path, text) in [("n1/etcd.yaml", etcd), ("n1/keepalived.conf", keepalived), ("n1/nginx.conf", nginx)]
    {
        for text in [text.to_owned(), text.replace("}geheim\n }", "}geheim")] {
            let report = predict(&[File { path: path.into(), text }]);
            let told = report.to_text() + &report.to_json().unwrap();
            assert!(!told.contains("geheim"), "{path}: {told}");
        }
    }
}

#[test]
fn a_time_that_cannot_be_read_is_named() {
    for (file, from, to, what) in [
        ("kube-controller-manager.args", "=50s", "=$GRACE", "node-monitor-grace-period is \"$GRACE\""),
        ("kube-controller-manager.args", "=50s", "=1s500", "node-monitor-grace-period is \"1s500\""),
        ("keepalived.conf", "advert_int 0.2", "advert_int $x", "advert_int isn't a number"),
        ("haproxy.cfg", "inter 500ms", "inter soon", "default-server"),
    ] {
        let report = predict(&files(&[(file, from, to)]));
        let told: Vec<_> = report.not_understood.iter().filter(|told| told.what.contains(what)).collect();
        assert!(told.iter().any(|told| told.file.ends_with(file)), "{to}: {:?}", report.not_understood);
    }
}

#[test]
fn many_names_and_addresses_cost_no_more_than_their_words() {
    let names: Vec<String> = (0..20_000).map(|n| format!("n{n}.example")).collect();
    let addresses: Vec<String> = (0..20_000).map(|n| format!("10.1.{}.{}", n / 250, n % 250)).collect();
    let k3s = format!("cluster-init: true\ntls-san: [{}]\n", names.join(", "));
    let keepalived = KEEPALIVED.replace("10.0.0.100/24", &addresses.join("\n")).replace("PRIORITY", "100");
    let all = [("n1/config.yaml", k3s), ("n1/keepalived.conf", keepalived)];
    let report = predict(&all.map(|(path, text)| File { path: path.into(), text }));
    let lacking = report.findings.iter().filter(|finding| finding.what.contains("`tls-san` lacks"));
    assert_eq!(lacking.count(), 100, "no more than so many are held against all hosts");
}

#[test]
fn a_report_names_the_hosts_and_keeps_labels_off_their_bars() {
    let slow = [("kube-controller-manager.args", "=50s", "=50000s --node-monitor-period=10000s")];
    let text = predict(&files(&slow)).to_text();
    assert!(text.contains("\n  hosts: n1, n2, n3\n"), "{text}");
    let bars = text.lines().filter(|line| line.contains(['█', '░', '▓']));
    for line in bars {
        let label = line.split(['█', '░', '▓', '·', '▶']).next().unwrap();
        assert!(label.ends_with("  "), "{line}");
    }
}

#[test]
fn one_proxy_is_not_enough() {
    let only_first = |file: &File| !file.path.contains("haproxy") || file.path.starts_with("n1");
    let report = predict(&files(&[]).into_iter().filter(only_first).collect::<Vec<_>>());
    assert!(fatal(&report).iter().any(|told| told.contains("one proxy in front")), "{:?}", fatal(&report));
    let only_first = |file: &File| !file.path.contains("keepalived") || file.path.starts_with("n1");
    let report = predict(&files(&[]).into_iter().filter(only_first).collect::<Vec<_>>());
    assert!(
        fatal(&report).iter().any(|told| told.contains("one host of several can hold")),
        "{:?}",
        fatal(&report)
    );
    let report = predict(&[File { path: "haproxy.cfg".into(), text: HAPROXY.into() }]);
    assert!(fatal(&report).iter().any(|told| told.contains("one proxy in front")), "{:?}", fatal(&report));
}

#[test]
fn nginx_finds_a_dead_server_by_its_callers_only() {
    let with = |from: &str, to: &str| {
        let mut all: Vec<File> =
            files(&[]).into_iter().filter(|file| !file.path.contains("haproxy")).collect();
        assert!(NGINX.contains(from));
        all.extend(
            (1..=3).map(|host| File { path: format!("n{host}/nginx.conf"), text: NGINX.replace(from, to) }),
        );
        predict(&all)
    };
    let report = with("500ms", "500ms");
    assert!(
        report.highly_available && said(&report, Level::Risk, "nginx looks at no server by itself"),
        "{:?}",
        report.findings
    );
    assert_eq!(
        report.clocks[1].span.typical_ms, report.clocks[0].span.typical_ms,
        "0.5 s are over before the API is back"
    );
    let report = with(" proxy_connect_timeout 500ms;", "");
    assert!(
        fatal(&report).iter().any(|told| told.contains("one request in three fails for 60.0 s")),
        "{:?}",
        fatal(&report)
    );
    for (from, to, what) in [
        ("max_fails=1", "max_fails=0", "has `max_fails=0`"),
        ("proxy_pass", "proxy_next_upstream off; proxy_pass", "gets no other"),
        (
            "10.0.0.2:6443 max_fails=1 fail_timeout=10s;\n    server 10.0.0.3",
            "10.0.0.1:6444;\n    server 10.0.0.1",
            "same host behind it 3 times",
        ),
    ] {
        let report = with(from, to);
        assert!(fatal(&report).iter().any(|told| told.contains(what)), "{what}: {:?}", fatal(&report));
    }
    // The same in files of their own, and beside a website.
    let (upstream, server) = NGINX.trim_end_matches("}\n").split_once("  server {").unwrap();
    let mut all: Vec<File> = files(&[]).into_iter().filter(|file| !file.path.contains("haproxy")).collect();
    for host in 1..=3 {
        let mut add =
            |name: &str, text: String| all.push(File { path: format!("n{host}/nginx/{name}"), text });
        add(
            "nginx.conf",
            "events {}\nstream {\n include conf.d/*.conf;\n}\nhttp {\n include sites/*;\n}\n".into(),
        );
        add("conf.d/apis.conf", upstream.replace("stream {\n", ""));
        add("conf.d/proxy.conf", format!("server {{{server}}}\n"));
        add("sites/web", "server { listen 443; location / { proxy_pass http://127.0.0.1:3000; } }\n".into());
    }
    let report = predict(&all);
    assert!(report.highly_available && report.not_understood.is_empty(), "{report:?}");
    assert_eq!(with("max_fails=1", "max_fails=0").clocks[1].span.typical_ms, u64::MAX, "never");
}

#[test]
fn a_certificate_must_be_for_the_virtual_address() {
    let certificate = include_str!("files/apiserver.crt");
    let mut all = files(&[]);
    all.push(File { path: "n1/pki/apiserver.crt".into(), text: certificate.into() });
    let report = predict(&all);
    assert!(
        fatal(&report)[0].contains("n1/pki/apiserver.crt: the API server's certificate isn't for 10.0.0.100"),
        "{:?}",
        fatal(&report)
    );
    let kubeadm = "kind: ClusterConfiguration\napiServer: {certSANs: [10.0.0.7]}\n";
    let mut all = files(&[]);
    all.push(File { path: "kubeadm.yaml".into(), text: kubeadm.into() });
    assert!(fatal(&predict(&all))[0].contains("certSANs lacks 10.0.0.100"));
    let k3s = "cluster-init: true\ntls-san: [10.0.0.7]\n";
    let keepalived = KEEPALIVED.replace("PRIORITY", "100");
    let all = [("config.yaml", k3s), ("keepalived.conf", &keepalived)];
    let all: Vec<File> = all.map(|(path, text)| File { path: path.into(), text: text.into() }).into();
    assert!(fatal(&predict(&all)).iter().any(|told| told.contains("`tls-san` lacks 10.0.0.100")));
}

#[test]
fn holdfasts_own_configurations_are_held_against_each_other() {
    let config = |host: u8, members: u8, change: (&str, &str)| {
        let peers: Vec<String> = (1..=members).map(|of| format!("\"n{of}\": \"10.73.0.{of}\"")).collect();
        let text = format!(
            "{{\"clusterId\": \"c1\", \"name\": \"n{host}\", \"address\": \"10.73.0.{host}\", \"hostCidr\": \"10.73.0.0/24\", \
             \"peers\": {{{}}}, \"podCidr\": \"10.244.{host}.0/24\", \"clusterCidr\": \"10.244.0.0/16\", \"serviceCidr\": \"10.96.0.0/16\", \
             \"virtualAddress\": \"10.73.0.100\", \"net\": {{\"kind\": \"netns\", \"link\": \"eth0\"}}, \
             \"timeouts\": {{\"nodes\": {{\"notReadyAfter\": \"1100ms\"}}}}, \
             \"dataDir\": \"/d\", \"begunFile\": \"/b\", \"timelineFile\": \"/t\", \"pkiDir\": \"/p\"}}",
            peers.join(", ")
        );
        assert!(text.contains(change.0));
        File { path: format!("n{host}/config.json"), text: text.replace(change.0, change.1) }
    };
    let same = ("c1", "c1");
    let report = predict(&[config(1, 2, same), config(2, 2, same)]);
    assert!(fatal(&report)[0].contains("two members"), "{:?}", fatal(&report));
    let report = predict(&[config(1, 3, same), config(2, 3, ("c1", "c2"))]);
    assert!(
        fatal(&report)[0].contains("n2 differs from n1/config.json in clusterId"),
        "{:?}",
        fatal(&report)
    );
    let slow = ("1100ms", "30s");
    let report = predict(&[config(1, 3, slow), config(2, 3, slow), config(3, 3, slow)]);
    assert!(report.highly_available, "{:?}", report.findings);
    assert!(
        report.advice[0].change.contains("timeouts.nodes.notReadyAfter: 1.10 s instead of 30.0 s"),
        "{:?}",
        report.advice
    );
    let broken = predict(&[config(1, 3, ("10.96.0.0/16", "10.73.0.0/16"))]);
    assert!(broken.unknown_files[0].why.contains("serviceCidr"), "{broken:?}");
}
