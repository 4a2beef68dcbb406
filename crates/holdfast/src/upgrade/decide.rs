//! Whether a host may be upgraded now, and whether it is back: functions of what the cluster says.

use std::fmt;
use std::str::FromStr;

use ::check::{ClusterSays, HostAnswer, HostSays};
use serde_json::Value;

/// A member that takes longer than this to come up with what was written is no part of a majority on which others could rely.
const LAGS: f64 = 1_000.0;

/// A version of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    major: u64,
    minor: u64,
    patch: u64,
}

impl Version {
    /// Whether hosts of the two work side by side: those of one minor version and of the next one, and of a major one and the first of
    /// the next.
    fn is_neighbour_of(self, other: Version) -> bool {
        let (old, new) = if self <= other { (self, other) } else { (other, self) };
        match new.major - old.major {
            0 => new.minor - old.minor <= 1,
            1 => new.minor == 0,
            _ => false,
        }
    }
}

impl FromStr for Version {
    type Err = String;

    /// The parts that name a build or a pre-release (`0.2.0-rc.1`) are ignored.
    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.trim().split(['-', '+']).next().unwrap_or_default();
        let numbers: Result<Vec<u64>, _> = numbers.split('.').map(str::parse).collect();
        match numbers.as_deref() {
            Ok(&[major, minor, patch]) => Ok(Version { major, minor, patch }),
            _ => Err(format!("{text:?} is no version such as 0.1.0")),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Version { major, minor, patch } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Why a host should stay as it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Against {
    /// The cluster would stop while it is away. Who has one or two members can't do without that.
    Stops(String),
    /// It would do harm for longer than that.
    Never(String),
}

/// What speaks against upgrading the host of this name to `new` now; nothing if it may be.
pub fn against(name: &str, new: Version, says: &ClusterSays) -> Option<Against> {
    against_version(name, new, says).map(Against::Never).or_else(|| stops(name, says).map(Against::Stops))
}

fn against_version(name: &str, new: Version, says: &ClusterSays) -> Option<String> {
    let own = match says.hosts.get(name) {
        Some(HostAnswer::Says(own)) => own,
        _ => return Some(format!("{name} itself doesn't tell how it is: `holdfast status` says more")),
    };
    match own.version.parse::<Version>() {
        Err(why) => return Some(format!("{name} tells no version: {why}")),
        Ok(old) if new < old => {
            return Some(format!(
                "the new program is {new}, which is older than {name}'s {old}: hosts go forward"
            ));
        }
        Ok(old) if !new.is_neighbour_of(old) => {
            return Some(format!(
                "the new program is {new}, and {name} runs {old}: upgrade all hosts to each minor version in between"
            ));
        }
        Ok(_) => {}
    }
    let others = spoken(says).filter(|(other, _)| *other != name);
    let strangers = others.filter(|(_, other)| {
        other.version.parse::<Version>().map_or(true, |version| !version.is_neighbour_of(new))
    });
    let strangers: Vec<String> =
        strangers.map(|(other, says)| format!("{other} ({})", says.version)).collect();
    (!strangers.is_empty())
        .then(|| format!("{new} can't work side by side with {}: upgrade these first", strangers.join(", ")))
}

/// Why the cluster would take no writes without this host; nothing if the others can do without it.
fn stops(name: &str, says: &ClusterSays) -> Option<String> {
    // Where the state lies in an etcd, no host of ours is needed for it.
    let members = says.members.as_deref()?;
    let voters: Vec<&str> =
        members.iter().filter(|member| !member.is_learner).map(|member| member.name.as_str()).collect();
    if !spoken(says).any(|(_, host)| host.leads) {
        return Some("nobody leads: the cluster takes no writes as it is".to_owned());
    }
    if !voters.contains(&name) {
        return None;
    }
    let others: Vec<&str> = voters.iter().copied().filter(|other| *other != name).collect();
    if others.is_empty() {
        return Some(format!("{name} is the only member: the cluster takes no writes until it is back"));
    }
    let lacking: Vec<String> =
        others.iter().filter_map(|other| Some(format!("{other} {}", lacks_part(other, says)?))).collect();
    let (there, needed) = (others.len() - lacking.len(), voters.len() / 2 + 1);
    (there < needed).then(|| {
        let why = if lacking.is_empty() { String::new() } else { format!(" ({})", lacking.join(", ")) };
        format!(
            "of {} members {needed} are needed, and without {name} {there} are there{why}: the cluster takes no writes until it is back",
            voters.len()
        )
    })
}

/// Why a member is no part of a majority on which others could rely; nothing if it is.
fn lacks_part(name: &str, says: &ClusterSays) -> Option<String> {
    match says.hosts.get(name) {
        Some(HostAnswer::Says(host)) => match host.caught_up_ms {
            Some(behind) if behind <= LAGS => None,
            _ => Some("lags behind".to_owned()),
        },
        Some(HostAnswer::Silent(_)) => Some("is silent".to_owned()),
        Some(HostAnswer::Fails(why)) => Some(format!("doesn't tell how it is: {why}")),
        None => Some("is unknown to the others".to_owned()),
    }
}

/// What the host of this name still lacks, before the next one may be upgraded; nothing if it is back, as `new`.
pub fn lacks(name: &str, new: Version, says: &ClusterSays, node: &Value) -> Option<String> {
    let Some(HostAnswer::Says(own)) = says.hosts.get(name) else {
        return Some("its API doesn't answer".to_owned());
    };
    if own.version.parse::<Version>() != Ok(new) {
        return Some(format!("it runs {}, and not {new}", own.version));
    }
    let is_member = says.members.iter().flatten().any(|member| member.name == name);
    if is_member && let Some(why) = lacks_part(name, says) {
        return Some(format!("its store {why}"));
    }
    let conditions = node["status"]["conditions"].as_array();
    let is_ready =
        conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True");
    (!is_ready).then(|| "its Node isn't Ready".to_owned())
}

/// What the others run, for people: who follows.
pub fn next(name: &str, new: Version, was: &str, says: &ClusterSays) -> String {
    let is_behind = |version: &str| match version.parse::<Version>() {
        // Two programs of one version can't be told apart from here.
        Ok(version) => version < new || was.parse::<Version>() == Ok(new),
        Err(_) => true,
    };
    let others = spoken(says).filter(|(other, host)| *other != name && is_behind(&host.version));
    let others: Vec<String> = others.map(|(other, host)| format!("{other} ({})", host.version)).collect();
    match others.is_empty() {
        true => format!("Every host that answers runs {new}."),
        false => format!("Next, one after the other: {}.", others.join(", ")),
    }
}

fn spoken(says: &ClusterSays) -> impl Iterator<Item = (&str, &HostSays)> {
    says.hosts.iter().filter_map(|(name, answer)| match answer {
        HostAnswer::Says(host) => Some((name.as_str(), &**host)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    /// A cluster of `NAME=VERSION` with `~` after those that lag and `!` after those that are silent; names with `l` don't vote, and with `w`
    /// are no members. The first leads.
    fn says(hosts: &str) -> ClusterSays {
        let mut answers = serde_json::Map::new();
        let mut members = Vec::new();
        for (index, host) in hosts.split(' ').enumerate() {
            let (name, told) = host.split_once('=').unwrap();
            let version = told.trim_end_matches(['~', '!']);
            let behind = if told.ends_with('~') { Value::Null } else { json!(0.4) };
            let own = json!({"version": version, "leader": null, "leads": index == 0, "revision": 1, "caughtUpMs": behind,
                "lease": {"seconds": 1.0, "epoch": 1}});
            let answer = if told.ends_with('!') { json!({"silent": 5.0}) } else { json!({"says": own}) };
            answers.insert(name.to_owned(), answer);
            if !name.starts_with('w') {
                members.push(json!({"name": name, "address": "10.0.0.1", "isLearner": name.starts_with('l'), "hasJoined": true}));
            }
        }
        let all =
            json!({"asked": "n1", "hosts": answers, "members": members, "virtualApi": "10.0.0.100:6443"});
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_version_is_three_numbers() {
        assert_eq!(version("0.2.0-rc.1+build\n"), version("0.2.0"));
        assert!(version("0.10.0") > version("0.9.9"));
        for wrong in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.-2.3", "99999999999999999999.0.0"] {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_next_version_is_a_neighbour_and_no_later_one() {
        for (old, new, is_one) in [
            ("0.1.0", "0.1.0", true),
            ("0.1.0", "0.1.9", true),
            ("0.1.5", "0.2.0", true),
            ("0.1.0", "0.3.0", false),
            ("0.9.0", "1.0.0", true),
            ("0.9.0", "1.1.0", false),
            ("0.9.0", "2.0.0", false),
        ] {
            assert_eq!(version(old).is_neighbour_of(version(new)), is_one, "{old} {new}");
            assert_eq!(version(new).is_neighbour_of(version(old)), is_one, "{new} {old}");
        }
    }

    #[test]
    fn a_host_may_be_upgraded_while_the_others_have_a_majority() {
        for hosts in [
            "n1=0.1.0 n2=0.1.0 n3=0.1.0",
            "n1=0.1.0 n2=0.2.0 n3=0.1.0",
            "n2=0.1.0 n3=0.1.0 n4=0.1.0! n5=0.1.0 n1=0.1.0",
            // Who doesn't vote isn't needed, and isn't missed.
            "n2=0.1.0 n3=0.1.0 n1=0.1.0 l4=0.1.0~ w5=0.1.0!",
            "n2=0.1.0 w1=0.1.0",
        ] {
            let name = if hosts.contains("w1") { "w1" } else { "n1" };
            assert_eq!(against(name, version("0.2.0"), &says(hosts)), None, "{hosts}");
        }
        for (hosts, told) in [
            ("n1=0.1.0 n2=0.1.0 n3=0.1.0!", "n3 is silent"),
            ("n1=0.1.0 n2=0.1.0~ n3=0.1.0", "n2 lags behind"),
            ("n1=0.1.0 n2=0.1.0 l3=0.1.0", "of 2 members 2 are needed"),
            ("n1=0.1.0", "n1 is the only member"),
            ("n9=0.1.0! n1=0.1.0 n2=0.1.0 n3=0.1.0", "nobody leads"),
        ] {
            let Some(Against::Stops(why)) = against("n1", version("0.2.0"), &says(hosts)) else {
                panic!("{hosts}")
            };
            assert!(why.contains(told), "{told}: {why}");
        }
    }

    #[test]
    fn no_version_is_left_out_and_none_goes_back() {
        for (hosts, new, told) in [
            ("n1=0.2.0 n2=0.2.0 n3=0.2.0", "0.1.9", "older than n1's 0.2.0"),
            ("n1=0.1.0 n2=0.1.0 n3=0.1.0", "0.3.0", "each minor version in between"),
            ("n1=0.2.0 n2=0.1.0 n3=0.2.0", "0.3.0", "side by side with n2 (0.1.0)"),
            ("n1=0.2.0 n2=0.2.0 w3=0.1.0", "0.3.0", "side by side with w3 (0.1.0)"),
            ("n1=0.2.0! n2=0.2.0 n3=0.2.0", "0.2.0", "n1 itself doesn't tell"),
        ] {
            let Some(Against::Never(why)) = against("n1", version(new), &says(hosts)) else {
                panic!("{told}")
            };
            assert!(why.contains(told), "{told}: {why}");
        }
    }

    #[test]
    fn a_host_is_back_once_it_answers_as_the_new_one_has_caught_up_and_is_ready() {
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        let away = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        for (hosts, node, told) in [
            ("n1=0.2.0 n2=0.1.0", &ready, None),
            ("n1=0.2.0! n2=0.1.0", &ready, Some("its API doesn't answer")),
            ("n1=0.1.0 n2=0.1.0", &ready, Some("it runs 0.1.0, and not 0.2.0")),
            ("n1=0.2.0~ n2=0.1.0", &ready, Some("its store lags behind")),
            ("n1=0.2.0 n2=0.1.0", &away, Some("its Node isn't Ready")),
            ("n1=0.2.0 n2=0.1.0", &Value::Null, Some("its Node isn't Ready")),
        ] {
            assert_eq!(lacks("n1", version("0.2.0"), &says(hosts), node).as_deref(), told, "{hosts}");
        }
    }

    #[test]
    fn who_follows_is_told() {
        let told = |was: &str, hosts: &str| next("n1", version("0.2.0"), was, &says(hosts));
        assert_eq!(told("0.1.0", "n1=0.2.0 n2=0.1.0 n3=0.2.0"), "Next, one after the other: n2 (0.1.0).");
        assert_eq!(told("0.1.0", "n1=0.2.0 n2=0.2.0"), "Every host that answers runs 0.2.0.");
        assert_eq!(told("0.2.0", "n1=0.2.0 n2=0.2.0"), "Next, one after the other: n2 (0.2.0).");
    }
}
