//! Which host has which range of pods' addresses, and which machine it is: written in the store when a host is let in, before it has a
//! Node that says so, and when it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::overlap;
use ipnet::IpNet;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Where the register lies in the store. All of it is one value: two hosts that join at once change the same key, so that
/// they never get the same range.
pub const KEY: &str = "/allocations/hosts";
/// How long a range stays a host's that never registered its Node: long enough for a machine that is installed today and started
/// tomorrow.
const KEPT: SignedDuration = SignedDuration::from_hours(48);

/// The hosts that were let in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Register(pub BTreeMap<String, Entry>);

/// What one was let in with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its address.
    pub address: IpAddr,
    /// The range of its pods.
    pub pod_cidr: IpNet,
    /// When it was let in (last).
    pub since: Timestamp,
    /// The hash of the key that its machine made, by which two machines of one name are told apart.
    #[serde(default)]
    pub key: String,
}

/// A host's range of pods' addresses is another one's too.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "podCidr {own} of this host overlaps {pods}, which is {name}'s: pods of both may get one address; give this host a range of its own in \
     its configuration, and start it again"
)]
pub struct Overlap {
    own: IpNet,
    pods: IpNet,
    name: String,
}

impl Register {
    /// The register in a stored value. One that can't be read is empty: the Nodes still say what is taken.
    pub fn read(value: Option<&[u8]>) -> Self {
        value.and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default()
    }

    /// The value to store.
    pub fn text(&self) -> Vec<u8> {
        // Maps with names for keys and texts: there is nothing that JSON can't say.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Notes a host that runs: also the one that the cluster was made on has its line, for as long as it is a member, and its range is
    /// nobody else's while it has no Node. Whether that is new. `is_there` says whether there is a host of a name.
    ///
    /// # Errors
    /// [`Overlap`] if its range is another host's, or that of one that was let in lately.
    pub fn note(
        &mut self,
        name: &str,
        host: Entry,
        is_there: impl Fn(&str) -> bool,
    ) -> Result<bool, Overlap> {
        let counts =
            |other: &str, entry: &Entry| is_there(other) || host.since.duration_since(entry.since) < KEPT;
        let others = self.0.iter().filter(|(other, entry)| *other != name && counts(other, entry));
        let mut overlapping = others.filter(|(_, entry)| overlap(entry.pod_cidr, host.pod_cidr));
        if let Some((other, entry)) = overlapping.next() {
            return Err(Overlap { own: host.pod_cidr, pods: entry.pod_cidr, name: other.clone() });
        }
        let before = self.0.get(name);
        let host = Entry { since: before.map_or(host.since, |before| before.since), ..host };
        let is_new = before != Some(&host);
        if is_new {
            self.0.insert(name.to_owned(), host);
        }
        Ok(is_new)
    }

    /// Forgets hosts that never came, or are gone.
    pub(crate) fn forget(&mut self, is_there: impl Fn(&str) -> bool, now: Timestamp) {
        self.0.retain(|name, entry| is_there(name) || now.duration_since(entry.since) < KEPT);
    }
}

/// The ranges of this size in a network, in their order.
pub(crate) fn ranges(network: IpNet, prefix: u8) -> impl Iterator<Item = IpNet> {
    network.subnets(prefix).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(since: Timestamp) -> Entry {
        let pod_cidr = "10.244.1.0/24".parse().unwrap();
        Entry { address: [10, 0, 0, 1].into(), pod_cidr, since, key: "sha256:1".into() }
    }

    #[test]
    fn a_host_that_runs_is_noted_once() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut register = Register::default();
        let mut note = |entry: Entry| register.note("n1", entry, |_| false).unwrap();
        assert!(note(entry(since)));
        assert!(!note(entry(since + SignedDuration::from_hours(1))), "it is known");
        assert!(note(Entry { address: [10, 0, 0, 2].into(), ..entry(since) }), "it moved");
        assert_eq!(register.0["n1"].since, since);
    }

    #[test]
    fn a_range_is_one_host_s() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut register = Register([("n1".to_owned(), entry(since))].into());
        let at = |pods: &str, hours| Entry {
            pod_cidr: pods.parse().unwrap(),
            ..entry(since + SignedDuration::from_hours(hours))
        };
        for pods in ["10.244.1.0/24", "10.244.1.128/25", "10.244.0.0/16"] {
            let refused = register.note("n2", at(pods, 47), |_| false).unwrap_err().to_string();
            assert!(refused.contains(pods) && refused.contains("10.244.1.0/24, which is n1's"), "{refused}");
            register.note("n2", at(pods, 99), |name| name == "n1").unwrap_err();
        }
        assert_eq!(register.0.len(), 1);
        assert_eq!(register.note("n2", at("10.244.2.0/24", 1), |_| true), Ok(true));
        assert_eq!(register.note("n3", at("10.244.1.0/24", 49), |_| false), Ok(true), "n1 never came");
    }

    #[test]
    fn a_host_that_never_came_is_forgotten_in_the_end() {
        let since: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let entry = entry(since);
        let mut register = Register([("n1".to_owned(), entry.clone()), ("n2".to_owned(), entry)].into());
        assert_eq!(Register::read(Some(&register.text())), register);
        assert_eq!(Register::read(Some(b"{")), Register::default());
        register.forget(|_| false, since + SignedDuration::from_hours(47));
        assert_eq!(register.0.len(), 2);
        register.forget(|name| name == "n1", since + SignedDuration::from_hours(49));
        assert_eq!(register.0.keys().collect::<Vec<_>>(), ["n1"]);
    }
}
