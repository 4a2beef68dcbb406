//! What the controllers decide, and when that is done.

use std::collections::BTreeMap;
use std::time::Instant;

use controllers::{Ended, LeaseEnd};
use serde_json::json;

use super::{HOSTS, SILENT, World, number};

impl World {
    /// The controllers, on a host of the majority.
    pub(super) async fn lead(&mut self) {
        if self.leader.is_none_or(|leader| !self.reaches(leader)) {
            self.leader = (0..HOSTS.len()).find(|host| self.reaches(*host));
            if self.leader.is_some() {
                self.cluster.take_over();
            }
        }
        let Some(leader) = self.leader else { return };
        let now = self.cluster.now.instant;
        let agent = self.hosts[leader].agent.as_ref().unwrap();
        let begin = self.begin;
        let last = |host: usize| agent.heard.get(&host).copied().unwrap_or(begin);
        let silent: BTreeMap<String, Instant> = (0..HOSTS.len())
            .filter(|host| *host != leader && now.duration_since(last(*host)) >= SILENT)
            .map(|host| (HOSTS[host].to_owned(), last(host)))
            .collect();
        let mut ended: Ended = BTreeMap::new();
        for (host, end) in agent.count.all() {
            let (epoch, is_back) = (end.epoch, end.is_back);
            let same = self
                .cluster
                .ended
                .get(&host)
                .filter(|known| (known.epoch, known.is_back) == (epoch, is_back));
            let since = same.map_or(now, |known| known.since);
            ended.insert(host, LeaseEnd { epoch, is_back, since });
        }
        if self.faults.guesses {
            for host in silent.keys() {
                let epoch = self.cluster.fencing(host).epoch.unwrap_or_default();
                ended.insert(host.clone(), LeaseEnd { epoch, is_back: false, since: now });
            }
        }
        for host in HOSTS {
            let was = (self.cluster.silence.get(host), self.cluster.ended.get(host));
            if was != (silent.get(host), ended.get(host)) {
                self.cluster.look_at(host);
            }
        }
        let heard: Vec<&str> = HOSTS.into_iter().filter(|host| !silent.contains_key(*host)).collect();
        (self.cluster.silence, self.cluster.ended) = (silent, ended);
        for host in heard {
            // Its agent says that it is Ready again.
            let node = self.cluster.node(host);
            let mut conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let is_ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
            if !is_ready && self.reaches(number(host)) {
                let status = json!({"status": {"conditions": [self.cluster.condition("Ready", "True")]}});
                self.cluster.patch("v1", "Node", "", host, "status", status).await.unwrap();
            }
        }
        // Some of what is due, in an order of chance.
        for _ in 0..1 + self.dice.below(12) {
            let due = self.cluster.due();
            if due.is_empty() {
                break;
            }
            let key = due[self.dice.below(due.len())].clone();
            if key.component() != "fencing-controller" || self.dice.below(2) == 0 {
                self.cluster.reconcile(key).await;
                continue;
            }
            // What it has decided is done a while later, also if another one leads by then.
            let at = self.now + self.chance(500);
            let actions = self.cluster.decide(&key).actions;
            self.flying.extend(actions.into_iter().map(|action| (at, key.clone(), action)));
        }
        let now = self.now;
        for (_, key, action) in self.flying.extract_if(.., |(at, ..)| *at <= now).collect::<Vec<_>>() {
            self.cluster.carry_out(&key, action).await;
        }
        if self.dice.below(3) == 0 {
            self.cluster.place().await;
        }
        self.fenced += self.cluster.told.extract_if(.., |told| told.reason == "NodeFenced").count();
    }
}
