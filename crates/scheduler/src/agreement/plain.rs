//! The decision made the plain way: from lists, over all pods of all hosts, anew for each pod.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use objects::Pod;

use super::World;
use crate::class::{Class, Classes};
use crate::cluster::is_finished;
use crate::host_row::HostRow;
use crate::node::Node;
use crate::profile::Profiles;
use crate::storage::Need;
use crate::wish::Wish;

const ZONE: &str = "topology.kubernetes.io/zone";

/// The hosts of a world with a pod that looks for its place.
pub(super) struct Plain<'a> {
    hosts: Vec<(HostRow, Arc<Node>)>,
    wish: Wish,
    world: &'a World,
}

impl<'a> Plain<'a> {
    pub(super) fn new(world: &'a World, pod: &Arc<Pod>) -> Self {
        let mut classes = Classes::default();
        let host = |(name, node): (&String, &Arc<Node>)| {
            let mut host = HostRow::new(name);
            host.set_node(Some(node.clone()));
            host.silent = world.silent.contains(name);
            (host, node.clone())
        };
        let mut hosts: Vec<_> = world.nodes.iter().map(host).collect();
        for (pod, node) in world.pods.values().filter(|(pod, _)| !is_finished(pod)) {
            if let Some((host, _)) = hosts.iter_mut().find(|(host, _)| *host.name == **node) {
                host.add(pod, &classes.of(pod), &[]);
            }
        }
        let wish = Wish::of(
            pod,
            classes.of(pod),
            None,
            Need::default(),
            Profiles::default().first().clone(),
            &world.namespaces,
        );
        Plain { hosts, wish, world }
    }

    /// The pod's node, or against how many nodes each reason stands.
    pub(super) fn decide(&self) -> Result<String, BTreeMap<String, usize>> {
        let mut reasons = BTreeMap::new();
        let mut best = None;
        for (host, node) in &self.hosts {
            let mut against: Vec<String> = self
                .wish
                .profile
                .rules
                .against(&self.wish, host, node)
                .into_iter()
                .map(|reason| reason.text)
                .collect();
            if against.is_empty() {
                against.extend(self.obstacle(node).map(str::to_owned));
            }
            if against.is_empty() {
                let score = (self.score(host, node), host.name.clone());
                best = best.into_iter().chain([score]).min();
            }
            against.into_iter().for_each(|reason| *reasons.entry(reason).or_default() += 1);
        }
        best.map(|(_, name)| name.to_string()).ok_or(reasons)
    }

    /// Whether the pod can be on a node.
    pub(super) fn is_open(&self, name: &str) -> bool {
        let found = self.hosts.iter().find(|(host, _)| &*host.name == name);
        found.is_some_and(|(host, node)| {
            self.wish.profile.rules.against(&self.wish, host, node).is_empty()
                && self.obstacle(node).is_none()
        })
    }

    fn score(&self, host: &HostRow, node: &Node) -> impl Ord + use<> {
        let siblings = |class: &Class| self.wish.class.is_sibling(class);
        let company = self.wish.preferred.iter().map(|(term, weight)| {
            let means = |class: &Class| term.means(class, &self.world.namespaces);
            weight * self.around(node, &term.topology_key, means).unwrap_or(0)
        });
        let soft = self.wish.spreading.iter().filter(|constraint| !constraint.required);
        let crowding = soft.map(|constraint| {
            let counts = self.domains(constraint);
            let most = counts.values().copied().max().unwrap_or(0).max(0);
            let here = node.label(&constraint.key).map(|domain| counts.get(domain).copied().unwrap_or(0));
            here.unwrap_or(most + 1)
        });
        let in_zone = self.hosts.iter().filter(|(_, other)| other.label(ZONE) == node.label(ZONE));
        let preferred = self.wish.preferred_node(node) + company.sum::<i64>();
        (
            self.wish.discouraged(node),
            Reverse(preferred),
            crowding.sum::<i64>(),
            count(host, siblings),
            in_zone.map(|(other, _)| count(other, siblings)).sum::<i64>(),
            Reverse(self.drawn(node)),
            Reverse(self.wish.profile.rules.score(&self.wish, host, node)),
            host.pods.len(),
        )
    }

    /// The weight by which the pods that there are would have this one on a node.
    fn drawn(&self, node: &Node) -> i64 {
        let mut sum = 0;
        for (host, other) in &self.hosts {
            for (class, count) in &host.classes {
                for (term, weight) in &class.draws {
                    let place = node.label(&term.topology_key);
                    let near = place.is_some() && place == other.label(&term.topology_key);
                    if near && term.means(&self.wish.class, &self.world.namespaces) {
                        sum += weight * i64::from(*count);
                    }
                }
            }
        }
        sum
    }

    fn obstacle(&self, node: &Node) -> Option<&'static str> {
        for constraint in self.wish.spreading.iter().filter(|constraint| constraint.required) {
            let Some(domain) = node.label(&constraint.key) else {
                return Some("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            let counts = self.domains(constraint);
            let few = counts.is_empty() || counts.len() < constraint.min_domains;
            let least = if few { 0 } else { counts.values().copied().min().unwrap_or(0) };
            let itself = i64::from(constraint.means(&self.wish.class, &self.wish.class));
            if counts.get(domain).copied().unwrap_or(0) + itself - least > constraint.max_skew {
                return Some("node(s) didn't match pod topology spread constraints");
            }
        }
        for (term, itself) in &self.wish.near {
            let means = |class: &Class| {
                self.wish.near.iter().all(|(term, _)| term.means(class, &self.world.namespaces))
            };
            let labelled = self.hosts.iter().filter(|(_, node)| node.label(&term.topology_key).is_some());
            let first = *itself && labelled.map(|(host, _)| count(host, means)).sum::<i64>() == 0;
            if self.around(node, &term.topology_key, means).is_none_or(|pods| !first && pods == 0) {
                return Some("node(s) didn't match pod affinity rules");
            }
        }
        for term in &self.wish.class.apart {
            let means = |class: &Class| term.means(class, &self.world.namespaces);
            if self.around(node, &term.topology_key, means).is_some_and(|pods| pods > 0) {
                return Some("node(s) didn't match pod anti-affinity rules");
            }
        }
        let refuses = self.hosts.iter().any(|(host, other)| {
            host.classes.iter().flat_map(|(class, _)| &class.apart).any(|term| {
                let place = node.label(&term.topology_key);
                place.is_some()
                    && place == other.label(&term.topology_key)
                    && term.means(&self.wish.class, &self.world.namespaces)
            })
        });
        refuses.then_some("node(s) didn't satisfy existing pods anti-affinity rules")
    }

    /// How many pods are in a node's domain; nothing if it is in none.
    fn around(&self, node: &Node, key: &str, means: impl Fn(&Class) -> bool) -> Option<i64> {
        let domain = node.label(key)?;
        let there = self.hosts.iter().filter(|(_, other)| other.label(key) == Some(domain));
        Some(there.map(|(host, _)| count(host, &means)).sum())
    }

    /// The pods that a constraint counts, by domain.
    fn domains(&self, constraint: &crate::spread::Constraint) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        for (host, node) in self.hosts.iter().filter(|(h, node)| self.wish.counts(constraint, h, node)) {
            if let Some(domain) = node.label(&constraint.key) {
                let here = count(host, |class| constraint.means(&self.wish.class, class));
                *counts.entry(domain.to_owned()).or_default() += here;
            }
        }
        counts
    }
}

fn count(host: &HostRow, means: impl Fn(&Class) -> bool) -> i64 {
    host.classes.iter().filter(|(class, _)| means(class)).map(|(_, count)| i64::from(*count)).sum()
}
