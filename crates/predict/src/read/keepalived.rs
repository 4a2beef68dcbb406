//! keepalived's configuration, as far as it decides who holds an address.

use std::collections::BTreeSet;

use super::blocks::{Block, BlocksError, Ends, blocks};
use super::words::milliseconds;
use super::{NotUnderstood, keyword, note};

/// What can't change who holds an address, or how soon.
const HARMLESS: [&str; 33] = [
    "state",
    "interface",
    "virtual_router_id",
    "priority",
    "advert_int",
    "nopreempt",
    "preempt",
    "preempt_delay",
    "virtual_ipaddress",
    "virtual_ipaddress_excluded",
    "virtual_routes",
    "virtual_rules",
    "authentication",
    "track_script",
    "track_interface",
    "track_process",
    "track_file",
    "unicast_src_ip",
    "unicast_peer",
    "mcast_src_ip",
    "notify",
    "notify_master",
    "notify_backup",
    "notify_fault",
    "notify_stop",
    "smtp_alert",
    "garp_master_delay",
    "garp_master_repeat",
    "garp_master_refresh",
    "garp_master_refresh_repeat",
    "garp_lower_prio_repeat",
    "version",
    "debug",
];

/// Instances and scripts of one file: more is no file that somebody wrote, and each is held against the others.
const MOST: usize = 100;

/// What a file says.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Keepalived {
    /// Version 3 of VRRP, which has no passwords and times in hundredths of a second.
    pub(crate) version_3: bool,
    pub(crate) instances: Vec<Instance>,
    pub(crate) scripts: Vec<Script>,
    pub(crate) not_understood: Vec<NotUnderstood>,
}

/// A `vrrp_instance`: addresses that one host of several holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) starts_as_master: bool,
    pub(crate) interface: String,
    pub(crate) router_id: Option<u64>,
    pub(crate) priority: u64,
    pub(crate) advert_ms: u64,
    pub(crate) no_preempt: bool,
    pub(crate) addresses: Vec<String>,
    /// The scripts that it follows.
    pub(crate) tracks: Vec<String>,
    /// It follows a process or a file.
    pub(crate) tracks_otherwise: bool,
    /// The line of a password that stands there.
    pub(crate) password: Option<usize>,
    pub(crate) source: Option<String>,
    pub(crate) peers: Vec<String>,
    pub(crate) unicast: bool,
}

/// A `vrrp_script`, which says whether the host is fit to hold the addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) interval_ms: u64,
    pub(crate) fall: u64,
    /// What a failure takes from the priority; with 0 the host gives the addresses up.
    pub(crate) weight: i64,
}

/// Reads a file.
pub(crate) fn keepalived(text: &str) -> Result<Keepalived, BlocksError> {
    let mut read = Keepalived::default();
    // What is torn out of a password by a brace must not be told.
    let secret: BTreeSet<usize> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.contains("auth_pass"))
        .map(|(line, _)| line)
        .collect();
    let mut unknown = |line: usize, what: &str| {
        let what = if secret.contains(&line) { "what stands beside a password" } else { what };
        note(&mut read.not_understood, line, what);
    };
    for block in blocks(text, Ends::Line)? {
        match block.name() {
            "global_defs" => read.version_3 |= block.value("vrrp_version") == Some("3"),
            "vrrp_instance" | "vrrp_script" if read.instances.len() + read.scripts.len() >= MOST => {
                unknown(block.line, "more than 100 instances and scripts: this one isn't read");
            }
            "vrrp_instance" => {
                let of = block.inner.iter().filter(|statement| !HARMLESS.contains(&statement.name()));
                of.for_each(|statement| unknown(statement.line, keyword(statement.name())));
                unread(&block, &mut unknown);
                read.version_3 |= block.value("version") == Some("3");
                read.instances.push(instance(&block));
            }
            "vrrp_script" => {
                unread(&block, &mut unknown);
                read.scripts.push(script(&block));
            }
            "vrrp_sync_group" | "virtual_server" | "static_ipaddress" | "static_routes" | "track_file"
            | "vrrp_track_process" | "static_rules" => {}
            "include" => unknown(block.line, &["include", block.argument().unwrap_or_default()].join(" ")),
            other => unknown(block.line, keyword(other)),
        }
    }
    Ok(read)
}

/// Names numbers and times that are none: what they stand for is taken as keepalived has it.
fn unread(block: &Block, unknown: &mut impl FnMut(usize, &str)) {
    for statement in &block.inner {
        let text = statement.argument().unwrap_or_default();
        let is_read = match statement.name() {
            "priority" | "virtual_router_id" | "fall" => text.parse::<u64>().is_ok(),
            "weight" => text.parse::<i64>().is_ok(),
            "advert_int" | "interval" => milliseconds(text, 1000.0).is_some(),
            _ => true,
        };
        if !is_read {
            unknown(statement.line, &format!("{} isn't a number here", statement.name()));
        }
    }
}

fn instance(block: &Block) -> Instance {
    let number = |name: &str| block.value(name).and_then(|text| text.parse().ok());
    let names =
        |name: &str| block.last(name).map(|of| of.inner.iter().map(|each| each.name().to_owned()).collect());
    let addresses =
        names("virtual_ipaddress").into_iter().chain(names("virtual_ipaddress_excluded")).flatten();
    let without_prefix = |text: String| text.split('/').next().unwrap_or_default().to_owned();
    let password = block.last("authentication").and_then(|of| of.last("auth_pass"));
    Instance {
        name: block.argument().unwrap_or_default().to_owned(),
        line: block.line,
        starts_as_master: block.value("state").is_some_and(|state| state.eq_ignore_ascii_case("MASTER")),
        interface: block.value("interface").unwrap_or_default().to_owned(),
        router_id: number("virtual_router_id"),
        // keepalived's own, for a host that isn't the owner of the address.
        priority: number("priority").unwrap_or(100).clamp(1, 255),
        // keepalived's own; the number may have a fraction with version 3.
        advert_ms: block.value("advert_int").and_then(|text| milliseconds(text, 1000.0)).unwrap_or(1000),
        no_preempt: block.last("nopreempt").is_some(),
        addresses: addresses.map(without_prefix).collect::<Vec<_>>(),
        tracks: names("track_script").unwrap_or_default(),
        tracks_otherwise: block.last("track_process").is_some() || block.last("track_file").is_some(),
        password: password.map(|of| of.line),
        source: block.value("unicast_src_ip").map(str::to_owned),
        peers: names("unicast_peer").unwrap_or_default(),
        unicast: block.last("unicast_peer").is_some(),
    }
}

fn script(block: &Block) -> Script {
    let number = |name: &str| block.value(name).and_then(|text| text.parse().ok());
    Script {
        name: block.argument().unwrap_or_default().to_owned(),
        // keepalived's own: every second, at once, without a weight.
        interval_ms: block.value("interval").and_then(|text| milliseconds(text, 1000.0)).unwrap_or(1000),
        fall: number("fall").map_or(1, |fall: u64| fall.max(1)),
        weight: block.value("weight").and_then(|text| text.parse().ok()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_and_what_it_follows() {
        let text = "global_defs {\n vrrp_version 3\n}\ninclude more.conf\n\
            vrrp_script alive { script \"/bin/true\"\n interval 2\n fall 3\n weight -20\n }\n\
            vrrp_instance VI_1 {\n state MASTER\n interface eth0\n virtual_router_id 51\n priority 149\n advert_int 0.2\n\
            authentication { auth_type PASS\n auth_pass geheim\n }\n virtual_ipaddress { 10.0.0.100/24 dev eth0 }\n\
            track_script {\n alive\n }\n unicast_src_ip 10.0.0.1\n unicast_peer {\n 10.0.0.2\n 10.0.0.3\n }\n use_vmac\n}";
        let read = keepalived(text).unwrap();
        let named: Vec<_> = read.not_understood.iter().map(|n| (n.line, &*n.what)).collect();
        assert_eq!(named, [(4, "include more.conf"), (28, "use_vmac")]);
        let script = Script { name: "alive".into(), interval_ms: 2000, fall: 3, weight: -20 };
        assert_eq!((read.version_3, &read.scripts), (true, &vec![script]));
        let [one] = &read.instances[..] else { panic!("{:?}", read.instances) };
        assert_eq!(
            (one.priority, one.advert_ms, one.router_id, one.starts_as_master),
            (149, 200, Some(51), true)
        );
        assert_eq!(
            (&one.addresses, &one.tracks),
            (&vec!["10.0.0.100".to_owned()], &vec!["alive".to_owned()])
        );
        assert_eq!((one.password.is_some(), one.peers.len(), one.no_preempt), (true, 2, false));
        assert!(!format!("{read:?}").contains("geheim"), "a password is never kept");
    }

    #[test]
    fn what_is_left_out_is_as_keepalived_has_it() {
        let read = keepalived("vrrp_instance a {\n nopreempt\n}\nvrrp_script b {\n}").unwrap();
        let one = &read.instances[0];
        assert_eq!((one.priority, one.advert_ms, one.no_preempt, one.router_id), (100, 1000, true, None));
        assert_eq!(read.scripts[0], Script { name: "b".into(), interval_ms: 1000, fall: 1, weight: 0 });
    }
}
