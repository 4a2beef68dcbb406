//! What was found out about a cluster, before anybody judges it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use objects::AddressLease;

use super::told::{ClusterSays, HostAnswer, HostSays, MemberSays};
use crate::facts::Node;

#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// By this machine's clock.
    pub now: Timestamp,
    /// The server that answered.
    pub server: String,
    /// Those that were asked before it in vain, and why.
    pub unreached: Vec<(String, String)>,
    pub cluster: ClusterSays,
    pub nodes: Result<BTreeMap<String, Node>, String>,
    /// The addresses of Services.
    pub addresses: Result<Vec<AddressLease>, String>,
    /// The end of the certificate by which it was asked.
    pub own_certificate: Option<Timestamp>,
}

impl Facts {
    /// What a host says, where it says anything.
    pub fn says(&self, host: &str) -> Option<&HostSays> {
        match self.cluster.hosts.get(host)? {
            HostAnswer::Says(says) => Some(says),
            HostAnswer::Silent(_) | HostAnswer::Fails(_) => None,
        }
    }

    /// Those that answer, with what they say.
    pub fn speakers(&self) -> impl Iterator<Item = (&str, &HostSays)> {
        self.cluster.hosts.keys().filter_map(|name| Some((name.as_str(), self.says(name)?)))
    }

    /// Who leads: who says so of itself. A leader that others are about to replace may say so a moment longer, so the newest state counts.
    pub fn leader(&self) -> Option<&str> {
        let leaders = self.speakers().filter(|(_, says)| says.leads);
        leaders.max_by_key(|(_, says)| says.revision).map(|(name, _)| name)
    }

    /// How many changes a host is behind the leader, or behind the newest that anybody knows.
    pub fn behind(&self, host: &str) -> Option<u64> {
        let leads = self.leader().and_then(|leader| self.says(leader));
        let newest = match leads {
            Some(leader) => leader.revision,
            None => self.speakers().map(|(_, says)| says.revision).max()?,
        };
        Some(newest.saturating_sub(self.says(host)?.revision))
    }

    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.as_ref().ok()?.get(name)
    }

    pub fn member(&self, name: &str) -> Option<&MemberSays> {
        self.cluster.members.as_ref()?.iter().find(|member| member.name == name)
    }

    /// All that are hosts, members or Nodes, by name.
    pub fn names(&self) -> Vec<&str> {
        let members = self.cluster.members.iter().flatten().map(|member| member.name.as_str());
        let nodes = self.nodes.iter().flatten().map(|(name, _)| name.as_str());
        let hosts = self.cluster.hosts.keys().map(String::as_str);
        let mut names: Vec<&str> =
            hosts.chain(members).chain(nodes).filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}
