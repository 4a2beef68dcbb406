//! For pods that ask for the same: what speaks for and against each host. It is brought up to date for hosts that changed,
//! and keeps those that fit in order, so a decision costs the look at one host that changed and at the best of each zone.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use crate::class::Class;
use crate::cluster::Namespaces;
use crate::column::Column;
use crate::host_row::HostRow;
use crate::node::Node;
use crate::unschedulable::{Hope, Reason, Unschedulable};
use crate::wish::Wish;

const ZONE: &str = "topology.kubernetes.io/zone";

/// Figures of all hosts for one wish.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub wish: Wish,
    /// The change of the cluster up to which the figures are right.
    pub seen: u64,
    /// When it was last used, in decisions.
    pub used: u64,
    /// Why there is no place, as of a change of the cluster.
    pub failed: Option<(u64, Arc<Unschedulable>)>,
    /// By the host's number: how it stands, if the pod fits there.
    rows: Vec<Option<Standing>>,
    /// The same by zone, the best first.
    order: HashMap<u32, BTreeSet<Standing>>,
    /// Siblings by zone.
    zones: Column,
    near: Vec<Column>,
    apart: Vec<Column>,
    preferred: Vec<Column>,
    spreading: Vec<Column>,
    /// By topology, the pods that keep those of this wish away.
    refused: Vec<Column>,
    /// By topology, what the pods there weigh that would have those of this wish near them.
    drawn: Vec<Column>,
}

/// How a host stands as far as other hosts have nothing to do with it; the best is the least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    discouraged: usize,
    preferred: Reverse<i64>,
    siblings: i32,
    room: Reverse<i64>,
    pods: usize,
    name: Arc<str>,
    at: usize,
}

/// What stands against a host because of pods elsewhere.
#[derive(Debug, Clone, Copy)]
enum Obstacle {
    NoLabel,
    Skew,
    Near,
    Apart,
    Refused,
}

/// What depends on all hosts together, worked out once for a decision.
pub(crate) struct Round {
    /// By spreading constraint: the fewest pods in a domain, and the most.
    ranges: Vec<(i64, i64)>,
    /// Whether the pod may be the first of its kind, as far as required affinities go.
    first: bool,
}

impl Ledger {
    pub fn new(wish: Wish) -> Self {
        let columns = |keys: &mut dyn Iterator<Item = &String>| keys.map(|key| Column::new(key)).collect();
        Ledger {
            seen: 0,
            used: 0,
            failed: None,
            rows: Vec::new(),
            order: HashMap::new(),
            zones: Column::new(ZONE),
            near: columns(&mut wish.near.iter().map(|(term, _)| &term.topology_key)),
            apart: columns(&mut wish.apart().iter().map(|term| &term.topology_key)),
            preferred: columns(&mut wish.preferred.iter().map(|(term, _)| &term.topology_key)),
            spreading: columns(&mut wish.spreading.iter().map(|constraint| &constraint.key)),
            refused: Vec::new(),
            drawn: Vec::new(),
            wish,
        }
    }

    /// Whether most domains that it remembers are of nodes that are gone: then it should be made anew.
    pub fn is_worn(&self) -> bool {
        let most = 2 * self.rows.len() + 64;
        let all = [&self.near, &self.apart, &self.preferred, &self.spreading, &self.refused, &self.drawn];
        all.into_iter().flatten().chain([&self.zones]).any(|column| column.remembered() > most)
    }

    /// Takes in what a host is now.
    pub fn update(&mut self, at: usize, hosts: &[HostRow], namespaces: &Namespaces) {
        let host = &hosts[at];
        let node = host.open();
        let label = |key: &str| node.and_then(|node| node.label(key));
        let count = |means: &dyn Fn(&Class) -> bool| -> i32 {
            host.classes.iter().filter(|(class, _)| means(class)).map(|(_, count)| *count as i32).sum()
        };
        let siblings = count(&|class| self.wish.class.is_sibling(class));
        let standing = node.and_then(|node| self.standing(at, host, node, siblings));
        // Out of the order of the zone that the host was in, before `zones` says which one it is in now.
        self.take_out(at);
        // Nodes without a zone make one together: every node must be in some order to be found.
        self.zones.set(at, node.map(|node| node.label(ZONE).unwrap_or_default()), siblings, true);
        self.put_in(at, standing);
        // Only pods that all terms mean count for any (`podMatchesAllAffinityTerms` upstream).
        let company = count(&|class| self.wish.near.iter().all(|(term, _)| term.means(class, namespaces)));
        for (column, (term, _)) in self.near.iter_mut().zip(&self.wish.near) {
            column.set(at, label(&term.topology_key), company, true);
        }
        for (column, term) in self.apart.iter_mut().zip(self.wish.apart()) {
            let promised = host.nominees_for(self.wish.priority);
            let promised = promised.filter(|nominee| term.means(&nominee.class, namespaces)).count();
            let pods = count(&|class| term.means(class, namespaces)) + promised as i32;
            column.set(at, label(&term.topology_key), pods, true);
        }
        for (column, (term, _)) in self.preferred.iter_mut().zip(&self.wish.preferred) {
            column.set(at, label(&term.topology_key), count(&|class| term.means(class, namespaces)), true);
        }
        for (column, constraint) in self.spreading.iter_mut().zip(&self.wish.spreading) {
            let counts = node.is_some_and(|node| self.wish.counts(constraint, host, node));
            let pods = count(&|class| constraint.means(&self.wish.class, class));
            column.set(at, label(&constraint.key), pods, counts);
        }
        self.update_by_others(at, hosts, namespaces);
    }

    fn standing(&self, at: usize, host: &HostRow, node: &Node, siblings: i32) -> Option<Standing> {
        self.wish.profile.rules.against(&self.wish, host, node).is_empty().then(|| Standing {
            discouraged: self.wish.discouraged(node),
            preferred: Reverse(self.wish.preferred_node(node)),
            siblings,
            room: Reverse(self.wish.profile.rules.score(&self.wish, host, node)),
            pods: host.pods.len(),
            name: host.name.clone(),
            at,
        })
    }

    fn take_out(&mut self, at: usize) {
        let standing = self.rows.get_mut(at).and_then(Option::take);
        let zone = self.zones.domain(at).and_then(|zone| self.order.get_mut(&zone));
        if let (Some(standing), Some(zone)) = (standing, zone) {
            zone.remove(&standing);
        }
    }

    fn put_in(&mut self, at: usize, standing: Option<Standing>) {
        if self.rows.len() <= at {
            self.rows.resize(at + 1, None);
        }
        if let (Some(standing), Some(zone)) = (&standing, self.zones.domain(at)) {
            self.order.entry(zone).or_default().insert(standing.clone());
        }
        self.rows[at] = standing;
    }

    /// Takes in what the pods of a host say of those of this wish.
    fn update_by_others(&mut self, at: usize, hosts: &[HostRow], namespaces: &Namespaces) {
        let own = &self.wish.class;
        let host = &hosts[at];
        let promised = host.nominees_for(self.wish.priority).map(|nominee| (&nominee.class, 1));
        let there = host.classes.iter().map(|(class, count)| (class, *count as i32)).chain(promised);
        let rules = there.flat_map(|(class, count)| class.apart.iter().map(move |term| (term, count)));
        let company = self.wish.profile.company;
        let rules = rules.filter(|(term, _)| company.filters && term.means(own, namespaces));
        by_topology(&mut self.refused, at, hosts, rules.map(|(term, count)| (&*term.topology_key, count)));
        let there = host.classes.iter();
        let wishes =
            there.flat_map(|(class, count)| class.draws.iter().map(move |draw| (draw, *count as i32)));
        let wishes = wishes.filter(|((term, _), _)| company.scores && term.means(own, namespaces));
        let weights = wishes.map(|((term, weight), count)| (&*term.topology_key, count * *weight as i32));
        by_topology(&mut self.drawn, at, hosts, weights);
    }

    /// The best host, by its number.
    pub fn best(&self) -> Option<usize> {
        let round = self.round();
        let is_open = |standing: &&Standing| self.obstacle(standing.at, &round).is_none();
        let score = |standing: &Standing| {
            let at = standing.at;
            let crowding: i64 = self.crowding(at, &round).sum();
            let company = self.preferred.iter().zip(&self.wish.preferred);
            let company = company.map(|(column, (_, weight))| weight * column.around(at).unwrap_or(0));
            let preferred = Reverse(standing.preferred.0 + company.sum::<i64>());
            // What others would like comes after the spreading of replicas: it is not their risk.
            let drawn: i64 = self.drawn.iter().filter_map(|column| column.around(at)).sum();
            let spread = (standing.siblings, self.zones.around(at));
            (standing.discouraged, preferred, crowding, spread, Reverse(drawn))
        };
        let scored = |standing| (score(standing), standing);
        let best = if self.is_soft() {
            self.rows.iter().flatten().filter(is_open).map(scored).min()
        } else {
            // Within a zone, what comes from other hosts is the same for all that are open.
            self.order.values().filter_map(|zone| zone.iter().find(is_open)).map(scored).min()
        };
        best.map(|(_, standing)| standing.at)
    }

    /// Whether it is a matter of degree what pods there are elsewhere.
    pub fn is_soft(&self) -> bool {
        // Columns stay when the pods that wished something are gone.
        let draws = |column: &Column| column.counts().any(|weight| weight != 0);
        !self.preferred.is_empty()
            || self.drawn.iter().any(draws)
            || self.wish.spreading.iter().any(|constraint| !constraint.required)
    }

    /// Why no host is open to the pod, and the hosts where it may help that other pods go.
    pub fn reasons(&self, hosts: &[HostRow]) -> (Unschedulable, Vec<usize>) {
        let round = self.round();
        let mut why = Unschedulable { hope: Hope::NODES, ..Unschedulable::default() };
        let mut helpable = Vec::new();
        for at in (0..hosts.len()).filter(|at| hosts[*at].open().is_some()) {
            let reasons = self.against(at, hosts, &round);
            if reasons.iter().all(|reason| reason.hope.meets(Hope::ROOM)) {
                helpable.push(at);
            }
            why.count(reasons);
        }
        (why, helpable)
    }

    /// What stands against a host, none if the pod can be there. The host must be up to date.
    pub fn against(&self, at: usize, hosts: &[HostRow], round: &Round) -> Vec<Reason> {
        let host = &hosts[at];
        let Some(node) = host.open() else { return vec![Reason::new("", Hope::NODES)] };
        let reasons = self.wish.profile.rules.against(&self.wish, host, node);
        if !reasons.is_empty() {
            return reasons;
        }
        self.obstacle(at, round).map(Reason::from).into_iter().collect()
    }

    /// Whether the pod can be on a host.
    pub fn is_open(&self, at: usize) -> bool {
        self.rows.get(at).is_some_and(Option::is_some) && self.obstacle(at, &self.round()).is_none()
    }

    /// What depends on all hosts together, as they are now.
    pub fn round(&self) -> Round {
        let range = |(column, constraint): (&Column, &crate::spread::Constraint)| {
            let (mut least, mut most, mut domains) = (i64::MAX, 0, 0);
            for count in column.counts() {
                (least, most, domains) = (least.min(count), most.max(count), domains + 1);
            }
            let few = domains == 0 || domains < constraint.min_domains;
            (if few { 0 } else { least }, most)
        };
        let itself = self.wish.near.iter().all(|(_, itself)| *itself);
        let first = itself && self.near.iter().all(|column| column.counts().all(|count| count == 0));
        Round { ranges: self.spreading.iter().zip(&self.wish.spreading).map(range).collect(), first }
    }

    fn obstacle(&self, at: usize, round: &Round) -> Option<Obstacle> {
        for ((column, constraint), (least, _)) in
            self.spreading.iter().zip(&self.wish.spreading).zip(&round.ranges)
        {
            if !constraint.required {
                continue;
            }
            let Some(here) = column.around(at) else { return Some(Obstacle::NoLabel) };
            let itself = i64::from(constraint.means(&self.wish.class, &self.wish.class));
            if here + itself - least > constraint.max_skew {
                return Some(Obstacle::Skew);
            }
        }
        let is_near = |column: &Column| column.around(at).is_some_and(|pods| round.first || pods > 0);
        if !self.near.iter().all(is_near) {
            return Some(Obstacle::Near);
        }
        let any =
            |columns: &[Column]| columns.iter().any(|column| column.around(at).is_some_and(|pods| pods > 0));
        if any(&self.apart) {
            return Some(Obstacle::Apart);
        }
        any(&self.refused).then_some(Obstacle::Refused)
    }

    /// How many matching pods are in the host's domains, for constraints that need not be kept.
    fn crowding(&self, at: usize, round: &Round) -> impl Iterator<Item = i64> {
        let constraints = self.spreading.iter().zip(&self.wish.spreading).zip(&round.ranges);
        let soft = constraints.filter(|((_, constraint), _)| !constraint.required);
        soft.map(move |((column, _), (_, most))| column.around(at).unwrap_or(most + 1))
    }
}

/// Sets what a host's pods come to in each of some topologies, with a column for each that comes up.
fn by_topology<'a>(
    columns: &mut Vec<Column>,
    at: usize,
    hosts: &[HostRow],
    amounts: impl Iterator<Item = (&'a str, i32)>,
) {
    let amounts: Vec<_> = amounts.collect();
    for (key, _) in &amounts {
        if !columns.iter().any(|column| column.key() == *key) {
            let mut column = Column::new(key);
            // Nothing is there by this label yet, or there would be a column; those that are updated later add themselves.
            for (at, host) in hosts.iter().enumerate() {
                column.set(at, host.open().and_then(|node| node.label(key)), 0, true);
            }
            columns.push(column);
        }
    }
    let node = hosts[at].open();
    for column in columns {
        let here = amounts.iter().filter(|(key, _)| *key == column.key()).map(|(_, amount)| amount).sum();
        let label = node.and_then(|node| node.label(column.key()));
        column.set(at, label, here, true);
    }
}

impl From<Obstacle> for Reason {
    fn from(obstacle: Obstacle) -> Self {
        match obstacle {
            Obstacle::NoLabel => Reason::new(
                "node(s) didn't match pod topology spread constraints (missing required label)",
                Hope::NODES,
            ),
            Obstacle::Skew => Reason::new(
                "node(s) didn't match pod topology spread constraints",
                Hope::NODES | Hope::ROOM | Hope::COMPANY,
            ),
            Obstacle::Near => {
                Reason::new("node(s) didn't match pod affinity rules", Hope::NODES | Hope::COMPANY)
            }
            Obstacle::Apart => {
                Reason::new("node(s) didn't match pod anti-affinity rules", Hope::NODES | Hope::ROOM)
            }
            Obstacle::Refused => Reason::new(
                "node(s) didn't satisfy existing pods anti-affinity rules",
                Hope::NODES | Hope::ROOM,
            ),
        }
    }
}
