//! How names are resolved, and what this machine is called.

use crate::facts::Facts;
use crate::finding::{Group, Section};

/// What resolvers take (`MAXNS` of glibc).
const MOST_SERVERS: usize = 3;

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Names);
    resolver(facts, &mut section);
    hostname(facts, &mut section);
    section
}

fn resolver(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "resolver";
    if let Some(config) = facts.plan.config.as_ref().filter(|config| !config.dns.upstream.is_empty()) {
        let servers: Vec<String> = config.dns.upstream.iter().map(ToString::to_string).collect();
        section.ok(
            CHECK,
            format!("names outside of the cluster are asked of {} (dns.upstream)", super::listed(&servers)),
        );
        return;
    }
    let Some((path, conf)) = &facts.names.resolver else {
        section.warning(
            CHECK,
            "there is no /etc/resolv.conf: pods resolve no name outside of the cluster",
            "write one, or set dns.upstream",
        );
        return;
    };
    let path = path.display();
    let servers: Vec<_> = conf.servers().collect();
    let own = facts.plan.config.as_ref().map(|config| config.address);
    let goes_round = |server: &&std::net::IpAddr| facts.plan.dns() == Some(**server) || own == Some(**server);
    if let Some(server) = servers.iter().find(goes_round) {
        section.fault(
            CHECK,
            format!("{path} names {server}, where the cluster's own DNS answers: questions would go round"),
            "name the network's servers there, or set dns.upstream",
        );
    } else if servers.is_empty() {
        section.warning(
            CHECK,
            format!("{path} names no server: pods resolve no name outside of the cluster"),
            "name one, or set dns.upstream",
        );
    } else if servers.iter().all(|server| server.is_loopback()) {
        section.note(
            CHECK,
            format!("{path} names only this machine ({}): the host can ask there, pods with dnsPolicy: Default can't", servers[0]),
        );
    } else if servers.len() > MOST_SERVERS {
        section.warning(
            CHECK,
            format!("{path} names {} servers, and resolvers ask the first {MOST_SERVERS}", servers.len()),
            format!("name {MOST_SERVERS} at most"),
        );
    } else {
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        section.ok(
            CHECK,
            format!("names outside of the cluster are asked of {} ({path})", super::listed(&servers)),
        );
    }
    if let Some(lost) = conf.clone().fit().into_iter().find(|said| said.starts_with("Search")) {
        section.warning("search", lost, format!("name fewer and shorter domains in {path}"));
    }
}

fn hostname(facts: &Facts, section: &mut Section) {
    const CHECK: &str = "hostname";
    let hostname = facts.names.hostname.as_str();
    let named = facts.plan.config.as_ref().map(|config| config.name.as_str());
    let set = "hostnamectl set-hostname NAME";
    match named {
        None if !config::is_host_name(hostname) => section.warning(
            CHECK,
            format!(
                "the hostname {hostname:?} can't be a Node's: it isn't of small letters, digits, '-' and '.'"
            ),
            format!("{set}, or give the host a name of its own in its configuration"),
        ),
        None if ["localhost", "localhost.localdomain", "debian", "ubuntu"].contains(&hostname) => section
            .warning(
                CHECK,
                format!("{hostname} is what many machines are called: hosts need names of their own"),
                format!("{set}, or give the host a name of its own in its configuration"),
            ),
        Some(name) if name != hostname && hostname.split('.').next() != Some(name) => {
            section.note(
                CHECK,
                format!("the machine is called {hostname}, and the host {name}: look for {name} in Nodes"),
            );
        }
        _ => section.ok(CHECK, format!("the machine is called {hostname}")),
    }
    match facts.names.hostname_is_known {
        true => section.ok("own-name", "the machine's own name resolves without asking anybody"),
        false => section.warning(
            "own-name",
            format!(
                "{hostname} isn't in /etc/hosts: programs that look themselves up wait for servers of names"
            ),
            format!("echo 127.0.1.1 {hostname} >> /etc/hosts, or install libnss-myhostname"),
        ),
    }
}
