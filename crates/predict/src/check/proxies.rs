//! The proxies in front of the API servers.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::read::{Host, Program, Source};
use crate::span::{NEVER, time};
use crate::story::Story;
use crate::timers::{instances, pairs};
use crate::upstream::API_STEADY;

/// An API that fails some callers for longer than this is not there for people, and kubelets lose their Leases over it.
const TOO_LONG_MS: u64 = 60_000;
/// A caller gives up before a proxy does.
const LONG_CONNECT_MS: u64 = 5000;

pub(super) fn check(hosts: &[Host], story: &Story, findings: &mut Findings) {
    let is_local = |address: &String| address.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let mut with: BTreeSet<&str> = BTreeSet::new();
    let mut local = true;
    let moving: BTreeSet<&str> =
        instances(hosts).iter().flat_map(|(_, _, one)| &one.addresses).map(String::as_str).collect();
    for host in hosts {
        if let Some((file, read)) = &host.haproxy {
            let mut looked_at = BTreeSet::new();
            for (front, backend) in pairs(read) {
                with.insert(&host.name);
                local &=
                    !front.listens.is_empty() && front.listens.iter().all(|listen| is_local(&listen.address));
                if looked_at.insert(backend.line) {
                    haproxy(file, backend, findings);
                }
                let is_new = front.line == backend.line || looked_at.insert(front.line);
                let listens = front.listens.iter().filter(|listen| is_new && !listen.transparent);
                listens.for_each(|listen| {
                    foreign(&moving, host, &file.at(listen.line), &listen.address, findings)
                });
            }
        }
        if let Some((file, read)) = &host.nginx {
            for proxy in read.of_api() {
                with.insert(&host.name);
                local &= !proxy.listens.is_empty() && proxy.listens.iter().all(is_local);
                nginx(file, proxy, findings);
                let place = file.at(proxy.line);
                proxy.listens.iter().for_each(|address| foreign(&moving, host, &place, address, findings));
            }
        }
    }
    let moves = hosts.iter().any(|host| host.keepalived.is_some());
    // With the files of one host alone the others are taken to be like it; but no address moves between them without keepalived.
    if let (1, Some(one), false) = (with.len(), with.first(), local)
        && (hosts.len() > 1 || !moves)
    {
        let what =
            "there is one proxy in front of the API servers: when its host dies, nobody reaches any of them";
        findings.fatal(
            *one,
            what,
            "run one on each of several hosts, with a virtual address that moves between them",
        );
    }
    if with.is_empty()
        && instances(hosts).is_empty()
        && hosts.iter().any(|host| host.runs(Program::ApiServer))
    {
        let what = "nothing here says how clients find another API server when theirs dies";
        findings.risk(
            "the cluster",
            what,
            "give the files of the proxies and of keepalived; where there are none, clients lose the API",
        );
    }
    slow(hosts, story, findings);
}

fn slow(hosts: &[Host], story: &Story, findings: &mut Findings) {
    let Some(clock) = story.clocks.iter().find(|clock| clock.name == API_STEADY) else { return };
    let span = clock.span;
    if span.typical_ms < TOO_LONG_MS || span.typical_ms == NEVER {
        return;
    }
    let proxies = hosts.iter().find_map(|host| {
        let of_haproxy = host.haproxy.as_ref().and_then(|(file, read)| {
            let (_, backend) = pairs(read).into_iter().next()?;
            Some((file.file(backend.line), backend.in_use().count()))
        });
        of_haproxy.or_else(|| {
            let (file, read) = host.nginx.as_ref()?;
            let proxy = read.of_api().next()?;
            Some((file.file(proxy.line), proxy.servers.len()))
        })
    });
    let (place, servers) = proxies.unwrap_or(("the proxies", 3));
    let part: String = match servers {
        0 | 1 => "every request".into(),
        2 => "one request in two".into(),
        3 => "one request in three".into(),
        more => format!("one request in {more}"),
    };
    let what = format!(
        "after a power cut {part} fails for {} ({} at most): a server counts as dead only after that",
        time(span.typical_ms),
        time(span.max_ms)
    );
    let remedy = "check twice a second: `default-server inter 500ms fall 2`";
    findings.fatal(place, what, remedy);
}

fn haproxy(file: &Source, backend: &crate::read::Section, findings: &mut Findings) {
    let place = file.at(backend.line);
    let servers: Vec<_> = backend.in_use().collect();
    behind(&place, servers.iter().map(|server| server.host.as_str()), findings);
    for server in servers.iter().filter(|server| !server.checked) {
        let what = format!(
            "server {} has no `check`: it gets its share of callers however long it is dead",
            server.name
        );
        findings.fatal(file.at(server.line), what, "write `check inter 500ms fall 2` after its address");
    }
    if !backend.redispatches && servers.len() > 1 {
        let what =
            "without `option redispatch` a caller whose server is dead is sent to the same server again";
        findings.risk(&place, what, "write `option redispatch 1` and `retries 3` into `defaults`");
    }
    if let Some(connect) = backend.connect_ms.filter(|ms| *ms > LONG_CONNECT_MS) {
        let what = format!(
            "a caller whose server is dead waits {} before another one is tried; most have given up by then",
            time(connect)
        );
        findings.risk(&place, what, "set `timeout connect 500ms`");
    }
}

fn nginx(file: &Source, proxy: &crate::read::NginxProxy, findings: &mut Findings) {
    let place = file.at(proxy.line);
    behind(&place, proxy.servers.iter().map(|server| server.host.as_str()), findings);
    if !proxy.tries_next {
        let what = "`proxy_next_upstream off`: a caller whose server is dead gets no other";
        findings.fatal(&place, what, "take it away");
    }
    for server in proxy.servers.iter().filter(|server| server.max_fails == 0 && proxy.servers.len() > 1) {
        let what = format!(
            "server {} has `max_fails=0`: it gets its share of callers however long it is dead",
            server.host
        );
        findings.fatal(file.at(server.line), what, "write `max_fails=1 fail_timeout=10s`");
    }
    let told = if proxy.servers.iter().any(|server| server.is_told) {
        ""
    } else {
        ", with its defaults for how many"
    };
    let what = format!(
        "nginx looks at no server by itself: callers' own connections must fail first{told}, each after {}, and again whenever a server's \
         fail_timeout is over",
        time(proxy.connect_ms)
    );
    findings.risk(&place, what, "set `proxy_connect_timeout 500ms`, or use a proxy with health checks");
}

/// The servers behind a proxy: how many hosts they are.
fn behind<'a>(place: &str, servers: impl Iterator<Item = &'a str>, findings: &mut Findings) {
    let mut by_host: BTreeMap<&str, usize> = BTreeMap::new();
    servers.for_each(|server| *by_host.entry(server).or_default() += 1);
    let all: usize = by_host.values().sum();
    let Some((host, most)) = by_host.iter().max_by_key(|(_, count)| **count) else { return };
    let remedy = "name each host's API server once";
    match (by_host.len(), all) {
        (1, 1) => findings.fatal(
            place,
            format!("the proxy has one server behind it ({host}): when that host dies, there is none"),
            remedy,
        ),
        (1, _) => {
            let what = format!(
                "the proxy has the same host behind it {all} times ({host}): when that host dies, there is none"
            );
            findings.fatal(place, what, remedy);
        }
        _ if *most > 1 => {
            let what = format!(
                "{host} stands behind the proxy {most} times: its loss takes as many parts of the callers"
            );
            findings.risk(place, what, remedy);
        }
        _ => {}
    }
}

/// A proxy listens on an address that its host may lack.
fn foreign(moving: &BTreeSet<&str>, host: &Host, place: &str, address: &str, findings: &mut Findings) {
    if !moving.contains(address) {
        return;
    }
    let key = if address.contains(':') { "net.ipv6.ip_nonlocal_bind" } else { "net.ipv4.ip_nonlocal_bind" };
    let what = format!("the proxy listens on the virtual address {address}, which every host but one lacks");
    let remedy = format!("set {key} = 1 on every host, or listen on all addresses");
    match host.kernel.get(key) {
        Some(setting) if setting.value == "1" => {}
        Some(setting) => {
            let what = format!(
                "{what}; {key} is {} in {}, so that it can't start there",
                setting.value, setting.file
            );
            findings.fatal(place, what, remedy);
        }
        None => {
            let what = format!("{what}; it starts there only if {key} is 1, and no file here says so");
            findings.risk(place, what, remedy);
        }
    }
}
