//! Which host a fault is for.

use crate::Error;
use crate::drill::Drill;
use crate::steady::Picture;
use rand::Rng;
use serde::{Serialize, Serializer};
use std::fmt;

/// Which host a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The host that leads.
    Leader,
    /// The host that holds the API's virtual address.
    Vip,
    /// A host that doesn't lead, with a share of the workload.
    Follower,
    /// A host outside of the control plane, with a share of the workload.
    Worker,
    /// The host of this name.
    Node(String),
    /// One host after the other, a run each.
    Each,
}

impl fmt::Display for Target {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(match self {
            Target::Leader => "leader",
            Target::Vip => "vip",
            Target::Follower => "follower",
            Target::Worker => "worker",
            Target::Node(name) => name,
            Target::Each => "each",
        })
    }
}

impl Serialize for Target {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

/// The host of a run.
pub(crate) struct Chosen {
    pub(crate) host: String,
    /// What it was to the cluster: `leader`, `vip`, `worker`.
    pub(crate) was: Vec<&'static str>,
}

impl Drill<'_> {
    /// The host of one of the runs, which are counted from 1.
    pub(crate) async fn choose(&mut self, number: usize, rest: &Picture) -> Result<Chosen, Error> {
        let (host, leader) = match &self.options.target {
            // Who leads the store holds the address: a site that knows one of them knows both (`Site::leader`).
            Target::Leader | Target::Vip => {
                let leader = self.leader().await?;
                (leader.clone(), Some(leader))
            }
            Target::Follower => {
                let leader = self.leader().await?;
                (self.bystander(rest, &leader)?, Some(leader))
            }
            Target::Worker => {
                let drawn = self.draw(rest, self.site.workers()).ok_or(Error::NoWorker)?;
                (drawn, self.leader_if_known().await)
            }
            Target::Node(name) => {
                let hosts = self.site.hosts();
                if !hosts.contains(name) {
                    return Err(Error::NoHost { name: name.clone(), hosts: hosts.join(", ") });
                }
                (name.clone(), self.leader_if_known().await)
            }
            Target::Each => {
                let hosts = self.site.hosts();
                let next = hosts.get(number.saturating_sub(1) % hosts.len().max(1));
                let next = next.ok_or(Error::NoBystander { hosts: hosts.len() })?;
                (next.clone(), self.leader_if_known().await)
            }
        };
        let leads = leader.as_ref() == Some(&host);
        let mut was = Vec::new();
        was.extend(leads.then_some("leader"));
        was.extend((leads && self.site.leader_holds_address()).then_some("vip"));
        was.extend(rest.serving().contains_key(&host).then_some("worker"));
        Ok(Chosen { host, was })
    }

    /// Who leads, for the report alone: a site that can't say so is no reason to hold no drill.
    async fn leader_if_known(&self) -> Option<String> {
        self.leader_now().await.unwrap_or_default()
    }

    /// A host with a share of the workload that doesn't lead.
    pub(crate) fn bystander(&mut self, rest: &Picture, leader: &str) -> Result<String, Error> {
        let hosts = self.site.hosts();
        let count = hosts.len();
        let others = hosts.into_iter().filter(|host| *host != leader).collect();
        // A majority has to be left.
        let drawn = if count < 3 { None } else { self.draw(rest, others) };
        drawn.ok_or(Error::NoBystander { hosts: count })
    }

    /// One of these hosts: of those with a share of the workload, where one of them has.
    fn draw(&mut self, rest: &Picture, mut hosts: Vec<String>) -> Option<String> {
        let serving = rest.serving();
        if hosts.iter().any(|host| serving.contains_key(host)) {
            hosts.retain(|host| serving.contains_key(host));
        }
        if hosts.is_empty() {
            return None;
        }
        Some(hosts.swap_remove(self.random.random_range(0..hosts.len())))
    }
}
