//! Which host has which range of pods' addresses, and which machine it is: written in the store when a host is let in, before it has a
//! Node that says so, and when it starts.

use std::collections::BTreeMap;
use std::net::IpAddr;

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
    /// nobody else's while it has no Node. Whether that is new.
    pub fn note(&mut self, name: &str, host: Entry) -> bool {
        let before = self.0.get(name);
        let host = Entry { since: before.map_or(host.since, |before| before.since), ..host };
        let is_new = before != Some(&host);
        if is_new {
            self.0.insert(name.to_owned(), host);
        }
        is_new
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
        assert!(register.note("n1", entry(since)));
        assert!(!register.note("n1", entry(since + SignedDuration::from_hours(1))), "it is known");
        assert!(register.note("n1", Entry { address: [10, 0, 0, 2].into(), ..entry(since) }), "it moved");
        assert_eq!(register.0["n1"].since, since);
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
