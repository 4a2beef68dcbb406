//! What settings must fulfil.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::settings::{Instance, Script, Settings};
use crate::state::OWNER;
use crate::track::HEAVIEST;

/// The most of anything that one list names.
const MOST: usize = 64;
/// The longest name.
const LONGEST_NAME: usize = 63;
/// The most words of a command, and the most bytes of each.
const MOST_WORDS: usize = 64;
const LONGEST_WORD: usize = 4096;
/// The unit of intervals in advertisements, and the most of them (RFC 9568, section 5.2.7).
const CENTISECOND: Duration = Duration::from_millis(10);
const MOST_CENTISECONDS: u32 = 4095;
/// How often a script may be run, and how long it may take.
const SCRIPT_TIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);
/// The most checks that a verdict may wait for.
const MOST_CHECKS: u32 = 1000;

/// Something that can't work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The field, like `instances[0].priority`.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

#[derive(Default)]
struct Problems(Vec<Problem>);

impl Problems {
    fn require(&mut self, holds: bool, field: &str, what: impl Into<String>, remedy: impl Into<String>) {
        if !holds {
            self.0.push(Problem { field: field.to_owned(), what: what.into(), remedy: remedy.into() });
        }
    }
}

impl Settings {
    /// All that can't work in them.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        let lists = [
            ("instances", self.instances.len()),
            ("groups", self.groups.len()),
            ("scripts", self.scripts.len()),
        ];
        for (field, length) in lists {
            problems.require(length <= MOST, field, format!("{length} are more than {MOST}"), "name fewer");
        }
        if !problems.0.is_empty() {
            // What is wrong with each of them would be more than anybody reads.
            return problems.0;
        }
        problems.require(
            !self.instances.is_empty() || self.is_empty(),
            "instances",
            "there are none, so groups and scripts are for nothing",
            "add a virtual router, or leave all out",
        );
        for (list, names) in [
            ("instances", self.instances.iter().map(|one| &*one.name).collect::<Vec<_>>()),
            ("groups", self.groups.iter().map(|one| &*one.name).collect()),
            ("scripts", self.scripts.iter().map(|one| &*one.name).collect()),
        ] {
            check_names(list, &names, &mut problems);
        }
        let mut addresses = BTreeMap::new();
        let mut numbers = BTreeMap::new();
        for (at, instance) in self.instances.iter().enumerate() {
            let path = format!("instances[{at}]");
            check_instance(&path, instance, &mut problems);
            let number = (&*instance.interface, instance.router_id);
            if let Some(other) = numbers.insert(number, &*instance.name) {
                let what = format!("{} is {other}'s number on {} too", number.1, number.0);
                problems.require(false, &format!("{path}.routerId"), what, "give each its own");
            }
            for address in &instance.addresses {
                let other = addresses.insert(*address, &*instance.name);
                let what = || format!("{address} is {}'s address already", other.unwrap_or_default());
                problems.require(
                    other.is_none(),
                    &format!("{path}.addresses"),
                    what(),
                    "name each address once",
                );
            }
            self.check_track(&path, instance, &mut problems);
        }
        self.check_groups(&mut problems);
        for (at, script) in self.scripts.iter().enumerate() {
            check_script(&format!("scripts[{at}]"), script, &mut problems);
        }
        for (field, command) in self.commands() {
            let words = (1..=MOST_WORDS).contains(&command.len())
                && command.iter().all(|word| word.len() <= LONGEST_WORD && !word.contains('\0'));
            let program = command.first().is_some_and(|program| program.starts_with('/'));
            problems.require(
                words && program,
                &field,
                format!("{command:?} is no absolute path of a program with its arguments"),
                "write it as a list, like [/usr/local/bin/program, argument]",
            );
        }
        problems.0
    }

    fn check_track(&self, path: &str, instance: &Instance, problems: &mut Problems) {
        let track = &instance.track;
        let scripts = track.scripts.iter().map(|script| ("scripts", &*script.name, script.weight));
        let links = track.interfaces.iter().map(|link| ("interfaces", &*link.name, link.weight));
        let mut seen = BTreeSet::new();
        for (list, name, weight) in scripts.chain(links) {
            let field = format!("{path}.track.{list}");
            let twice = !seen.insert((list, name));
            problems.require(!twice, &field, format!("{name} stands there twice"), "keep one of them");
            problems.require(
                (-HEAVIEST..=HEAVIEST).contains(&weight),
                &field,
                format!("{name}'s weight, {weight}, is not between -{HEAVIEST} and {HEAVIEST}"),
                "take one of these",
            );
            let what = format!("{name} has a weight, and an owner's priority stays as it is");
            problems.require(weight == 0 || instance.priority != OWNER, &field, what, "leave the weight out");
            let there = match list {
                "scripts" => self.scripts.iter().any(|script| script.name == name),
                _ => is_link(name),
            };
            let remedy = if list == "scripts" { "add it to scripts" } else { "name one like eth0" };
            problems.require(there, &field, format!("there is no {name:?}"), remedy);
        }
    }

    fn check_groups(&self, problems: &mut Problems) {
        let mut taken = BTreeMap::new();
        for (at, group) in self.groups.iter().enumerate() {
            let field = format!("groups[{at}].members");
            let fewest = "one alone needs no group";
            problems.require(group.members.len() > 1, &field, fewest, "name at least two virtual routers");
            for name in &group.members {
                if let Some(other) = taken.insert(name, &group.name) {
                    let what = format!("{name} is in {other} already");
                    problems.require(false, &field, what, "let each be in one group, once");
                }
                match self.instances.iter().find(|instance| instance.name == *name) {
                    None => {
                        let what = format!("there is no {name:?}");
                        problems.require(false, &field, what, "name virtual routers of instances");
                    }
                    Some(instance) => problems.require(
                        instance.priority != OWNER,
                        &field,
                        format!("{name} has this host's own addresses, which can't go with the others"),
                        "leave it out, or give it another priority than 255",
                    ),
                }
            }
        }
    }
}

fn check_names(list: &str, names: &[&str], problems: &mut Problems) {
    for (at, name) in names.iter().enumerate() {
        let field = format!("{list}[{at}].name");
        problems.require(
            (1..=LONGEST_NAME).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic()),
            &field,
            format!("{name:?} is no name of 1 to {LONGEST_NAME} visible characters"),
            "take one without spaces",
        );
        let what = format!("{name} stands there twice");
        problems.require(!names[..at].contains(name), &field, what, "give each a name of its own");
    }
}

fn check_instance(path: &str, instance: &Instance, problems: &mut Problems) {
    let Instance { interface, router_id, priority, preempt, advert_interval, addresses, .. } = instance;
    let field = |name: &str| format!("{path}.{name}");
    let what = format!("{interface:?} is no name of a link");
    problems.require(is_link(interface), &field("interface"), what, "name one like eth0");
    problems.require(*router_id != 0, &field("routerId"), "0 is no number", "take one of 1 to 255");
    problems.require(
        *priority != 0,
        &field("priority"),
        "by 0 a master says that it gives up",
        "take one of 1 to 254, or 255 if the addresses are this host's own",
    );
    problems.require(
        *preempt || *priority != OWNER,
        &field("preempt"),
        "who has the addresses for its own takes over always",
        "leave it out, or take another priority than 255",
    );
    let rest = advert_interval.as_nanos() % CENTISECOND.as_nanos();
    problems.require(
        (CENTISECOND..=CENTISECOND * MOST_CENTISECONDS).contains(advert_interval) && rest == 0,
        &field("advertInterval"),
        format!("{advert_interval:?} is no number of hundredths of a second from 1 to {MOST_CENTISECONDS}"),
        "take one between 10ms and 40950ms, such as 1s",
    );
    problems.require(
        (1..=MOST).contains(&addresses.len()),
        &field("addresses"),
        format!("there are {} of them, and not 1 to {MOST}", addresses.len()),
        "name the addresses that move",
    );
    for address in addresses {
        let (what, remedy) = match address {
            IpAddr::V6(_) => (
                format!("{address} is one of IPv6, for which virtual routers speak another VRRP"),
                "name addresses of IPv4",
            ),
            IpAddr::V4(v4)
                if v4.is_loopback()
                    || v4.is_multicast()
                    || v4.is_unspecified()
                    || v4.is_broadcast()
                    || v4.is_link_local() =>
            {
                (format!("{address} can't move between hosts"), "name addresses that hosts of the link reach")
            }
            IpAddr::V4(_) => continue,
        };
        problems.require(false, &field("addresses"), what, remedy);
    }
}

fn check_script(path: &str, script: &Script, problems: &mut Problems) {
    for (name, time) in [("interval", script.interval), ("timeout", script.limit())] {
        problems.require(
            SCRIPT_TIMES.contains(&time),
            &format!("{path}.{name}"),
            format!("{time:?} is not between {:?} and {:?}", SCRIPT_TIMES.start(), SCRIPT_TIMES.end()),
            "take a time between these, such as 1s",
        );
    }
    for (name, times) in [("rise", script.rise), ("fall", script.fall)] {
        problems.require(
            (1..=MOST_CHECKS).contains(&times),
            &format!("{path}.{name}"),
            format!("{times} is not between 1 and {MOST_CHECKS}"),
            "take a number between these",
        );
    }
}

/// As the kernel has it: IFNAMSIZ of 16 with its ending zero.
fn is_link(name: &str) -> bool {
    (1..16).contains(&name.len()) && name.chars().all(|c| c.is_ascii_graphic() && c != '/')
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn settings() -> Value {
        json!({
            "instances": [
                {"name": "out", "interface": "eth0", "routerId": 51, "addresses": ["10.73.0.50", "10.73.0.51"],
                    "track": {"scripts": [{"name": "haproxy", "weight": -20}], "interfaces": [{"name": "eth2"}]},
                    "notify": ["/etc/holdfast/notify", "--quick"]},
                {"name": "in", "interface": "eth1", "routerId": 51, "priority": 120, "preempt": false,
                    "advertInterval": "250ms", "addresses": ["10.74.0.50"]}],
            "groups": [{"name": "both", "members": ["out", "in"]}],
            "scripts": [{"name": "haproxy", "command": ["/usr/bin/pidof", "haproxy"], "interval": "2s", "rise": 2}]})
    }

    fn told(settings: Value) -> Vec<String> {
        let settings: Settings = serde_json::from_value(settings).unwrap();
        let told = |Problem { field, what, remedy }: Problem| format!("{field}: {what}; {remedy}");
        settings.problems().into_iter().map(told).collect()
    }

    #[test]
    fn what_can_work_is_let_be_and_says_what_it_leaves_out() {
        assert_eq!(told(settings()), [""; 0]);
        assert_eq!(told(json!({})), [""; 0]);
        let read: Settings = serde_json::from_value(settings()).unwrap();
        let first = &read.instances[0];
        assert_eq!(
            (first.priority, first.preempt, first.advert_interval),
            (100, true, Duration::from_secs(1))
        );
        let script = &read.scripts[0];
        assert_eq!((script.limit(), script.rise, script.fall), (Duration::from_secs(2), 2, 1));
        let written = serde_json::to_value(&read).unwrap();
        assert_eq!(serde_json::from_value::<Settings>(written).unwrap(), read);
    }

    #[test]
    fn what_can_t_work_is_found_at_its_field() {
        let table = [
            ("/instances/0/name", json!("a b"), "instances[0].name: \"a b\" is no name of "),
            ("/instances/0/name", json!("in"), "instances[1].name: in stands there twice; "),
            (
                "/instances/1/interface",
                json!("eth0"),
                "instances[1].routerId: 51 is out's number on eth0 too; ",
            ),
            (
                "/instances/1/interface",
                json!("a/b"),
                "instances[1].interface: \"a/b\" is no name of a link; ",
            ),
            ("/instances/0/routerId", json!(0), "instances[0].routerId: 0 is no number; "),
            (
                "/instances/1/priority",
                json!(0),
                "instances[1].priority: by 0 a master says that it gives up; ",
            ),
            ("/instances/1/priority", json!(255), "instances[1].preempt: who has the addresses for its own "),
            ("/instances/1/priority", json!(255), "groups[0].members: in has this host's own addresses, "),
            (
                "/instances/1/advertInterval",
                json!("5ms"),
                "instances[1].advertInterval: 5ms is no number of ",
            ),
            (
                "/instances/1/advertInterval",
                json!("15ms"),
                "instances[1].advertInterval: 15ms is no number of ",
            ),
            (
                "/instances/1/advertInterval",
                json!("41s"),
                "instances[1].advertInterval: 41s is no number of ",
            ),
            ("/instances/1/addresses", json!([]), "instances[1].addresses: there are 0 of them, "),
            (
                "/instances/1/addresses",
                json!(["fd00::1"]),
                "instances[1].addresses: fd00::1 is one of IPv6, ",
            ),
            ("/instances/1/addresses", json!(["127.0.0.1"]), "instances[1].addresses: 127.0.0.1 can't move "),
            ("/instances/1/addresses/0", json!("10.73.0.50"), "10.73.0.50 is out's address already; "),
            ("/instances/0/track/scripts/0/weight", json!(254), "haproxy's weight, 254, is not between "),
            ("/instances/0/track/scripts/0/name", json!("nginx"), "there is no \"nginx\"; add it to scripts"),
            (
                "/instances/0/track/interfaces/0/name",
                json!(""),
                "instances[0].track.interfaces: there is no \"\"; ",
            ),
            (
                "/instances/0/notify",
                json!(["notify"]),
                "instances[0].notify: [\"notify\"] is no absolute path ",
            ),
            ("/groups/0/members", json!(["in"]), "groups[0].members: one alone needs no group; "),
            ("/groups/0/members", json!(["in", "in"]), "groups[0].members: in is in both already; "),
            ("/groups/0/members", json!(["in", "up"]), "groups[0].members: there is no \"up\"; "),
            ("/scripts/0/command", json!([]), "scripts[0].command: [] is no absolute path "),
            ("/scripts/0/interval", json!("10ms"), "scripts[0].interval: 10ms is not between "),
            ("/scripts/0/interval", json!("2h"), "scripts[0].timeout: 7200s is not between "),
            ("/scripts/0/rise", json!(0), "scripts[0].rise: 0 is not between 1 and 1000; "),
            ("/instances", json!([]), "instances: there are none, "),
        ];
        for (pointer, value, wanted) in table {
            let mut settings = settings();
            *settings.pointer_mut(pointer).unwrap() = value;
            let told = told(settings);
            assert!(told.iter().any(|told| told.contains(wanted)), "{wanted}: {told:?}");
        }
        let mut owner = settings();
        owner["instances"][0]["priority"] = json!(255);
        assert!(told(owner).iter().any(|told| told.contains("an owner's priority stays as it is")));
        let mut many = settings();
        many["scripts"] = json!(vec![many["scripts"][0].clone(); 65]);
        assert_eq!(told(many), ["scripts: 65 are more than 64; name fewer"]);
    }
}
