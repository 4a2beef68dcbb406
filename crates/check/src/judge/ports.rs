//! Where the host listens, or somebody else does.

use std::net::IpAddr;

use crate::facts::{Facts, Holder, Listening, Protocol};
use crate::finding::{Group, Section};

/// The port of DNS (RFC 1035).
const DNS: u16 = 53;

/// A port that the host takes.
struct Wanted {
    /// The field of the configuration, or what it is for.
    name: &'static str,
    protocol: Protocol,
    port: u16,
}

impl Wanted {
    fn text(&self) -> String {
        let protocol = match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        };
        format!("{protocol} port {} ({})", self.port, self.name)
    }
}

pub(super) fn judge(facts: &Facts) -> Section {
    let mut section = Section::new(Group::Ports);
    let Some(listening) = &facts.listening else {
        section.unseen("ports", "/proc/net can't be read: who listens can't be seen", "see `ss -lntup`");
        return section;
    };
    let wanted = wanted(facts);
    let (mut free, mut held) = (Vec::new(), Vec::new());
    for port in &wanted {
        let there: Vec<&Listening> =
            listening.iter().filter(|socket| is_there(facts, port, socket)).collect();
        if facts.plan.installed().is_some() {
            match there.as_slice() {
                // A host works on without it.
                [] if port.port == DNS => section.warning(
                    "ports",
                    format!("nobody listens on {}: pods of this host find no service by name", port.text()),
                    "see in the host's log why it can't",
                ),
                [] => section.fault(
                    "ports",
                    format!("nobody listens on {}", port.text()),
                    "start the host, and read its log",
                ),
                some => match some.iter().find_map(|socket| stranger(socket)) {
                    Some(holder) => section.fault(
                        "ports",
                        format!("{} is held by {}", port.text(), named(Some(holder))),
                        taken(port, Some(holder)),
                    ),
                    None => held.push(port.port.to_string()),
                },
            }
        } else {
            match there.first() {
                None => free.push(port.port.to_string()),
                Some(socket) if socket.holder.as_ref().is_some_and(|holder| holder.is_ours) => section
                    .warning(
                        "ports",
                        format!(
                            "{} is held by {}: a host of Holdfast runs here already",
                            port.text(),
                            named(socket.holder.as_ref())
                        ),
                        "check it without --pre, or stop it",
                    ),
                Some(socket) => section.fault(
                    "ports",
                    format!("{} is held by {}", port.text(), named(socket.holder.as_ref())),
                    taken(port, socket.holder.as_ref()),
                ),
            }
        }
    }
    for (mut ports, are) in [(free, "free"), (held, "the host's")] {
        // DNS has one of each protocol.
        ports.dedup();
        if !ports.is_empty() {
            section.ok("ports", format!("ports {} are {are}", super::listed(&ports)));
        }
    }
    drawn(facts, &wanted, &mut section);
    section
}

fn wanted(facts: &Facts) -> Vec<Wanted> {
    let ports = facts.plan.ports();
    let tcp = |name, port| Wanted { name, protocol: Protocol::Tcp, port };
    let udp = |name, port| Wanted { name, protocol: Protocol::Udp, port };
    let mut wanted = vec![
        tcp("ports.api", ports.api),
        tcp("ports.agent", ports.agent),
        udp("ports.heartbeats", ports.heartbeats),
    ];
    if facts.plan.has_store() {
        wanted.extend([tcp("ports.store", ports.store), tcp("ports.etcd", ports.etcd)]);
    }
    wanted.extend([udp("DNS", DNS), tcp("DNS", DNS)]);
    wanted
}

/// Whether a socket keeps the host from listening, or is the host's own: at its address, or at all of them.
fn is_there(facts: &Facts, wanted: &Wanted, socket: &Listening) -> bool {
    let at = socket.at.ip().to_canonical();
    // Without a configuration any address may be the host's, but none of the loopback's: there resolvers listen on port 53.
    let is_own = |at: IpAddr| match &facts.plan.config {
        Some(config) => at == config.address || facts.plan.dns() == Some(at),
        None => !at.is_loopback(),
    };
    socket.protocol == wanted.protocol
        && socket.at.port() == wanted.port
        && (at.is_unspecified() || is_own(at))
}

fn stranger(socket: &Listening) -> Option<&Holder> {
    socket.holder.as_ref().filter(|holder| !holder.is_ours)
}

fn named(holder: Option<&Holder>) -> String {
    holder.map_or_else(
        || "a process that only root can see".to_owned(),
        |holder| format!("{} (process {})", holder.name, holder.pid),
    )
}

fn taken(port: &Wanted, holder: Option<&Holder>) -> String {
    let stop = holder.map_or_else(
        || "see by whom as root, and stop it".to_owned(),
        |holder| format!("stop {}", holder.name),
    );
    match port.port {
        DNS => format!("{stop}, or let it listen on 127.0.0.1 alone"),
        _ => format!("{stop}, or set {} to another port on all hosts", port.name),
    }
}

/// Ports that the kernel may give to a connection that goes out, just before the host wants them.
fn drawn(facts: &Facts, wanted: &[Wanted], section: &mut Section) {
    const NAME: &str = "net.ipv4.ip_local_port_range";
    let range = facts.settings.text(NAME).and_then(|text| {
        let mut bounds = text.split_whitespace().map(str::parse::<u16>);
        Some(bounds.next()?.ok()?..=bounds.next()?.ok()?)
    });
    let Some(range) = range else { return };
    let reserved = facts.settings.text("net.ipv4.ip_local_reserved_ports").unwrap_or_default();
    let is_reserved = |port: u16| {
        reserved.split(',').any(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let bound = |text: &str| text.trim().parse::<u16>().ok();
            bound(first).zip(bound(last)).is_some_and(|(first, last)| (first..=last).contains(&port))
        })
    };
    let drawn: Vec<String> = wanted
        .iter()
        .filter(|wanted| range.contains(&wanted.port) && !is_reserved(wanted.port))
        .map(|wanted| wanted.port.to_string())
        .collect();
    match drawn.is_empty() {
        true => section.ok("port-range", "connections that go out take none of these ports"),
        false => section.warning(
            "port-range",
            format!(
                "connections that go out may take {} ({NAME}): the host would fail to start now and then",
                super::listed(&drawn)
            ),
            super::set("net.ipv4.ip_local_reserved_ports", drawn.join(",")),
        ),
    }
}
