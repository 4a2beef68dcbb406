//! What agents do on their hosts, and what stops there without them.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use objects::{Delete, STOPS_WITH_LEASE};

use super::{HOSTS, Host, Process, World};

impl World {
    /// What supervisors do by themselves: they see the page and the clock, and nobody else.
    pub(super) fn keep_promises(&mut self, host: usize) {
        let (clock, now) = (self.clock(host), self.now);
        let stop = self.chance(self.faults.stop);
        let at = &mut self.hosts[host];
        for process in at.running.iter_mut().filter(|process| process.dead_at.is_none()) {
            if clock >= at.page.until {
                process.dead_at = Some(now + stop);
            }
        }
        at.running.retain(|process| process.dead_at.is_none_or(|dead| now < dead));
    }

    /// What an agent that reaches the state does: one thing a step for each pod.
    pub(super) async fn run_agent(&mut self, host: usize) {
        let (name, clock) = (HOSTS[host], self.clock(host));
        let agent = self.hosts[host].agent.as_mut().unwrap();
        let (is_held, epoch) = (agent.lease.is_held(clock), agent.lease.epoch());
        let said = self.cluster.fencing(name);
        if is_held && said.epoch != Some(epoch) {
            self.cluster.register(name, epoch).await;
            return;
        }
        let mut there = BTreeSet::new();
        for pod in self.cluster.list::<Pod>() {
            if pod.spec.as_ref().unwrap().node_name.as_deref() != Some(name) {
                continue;
            }
            let (called, uid) = (pod.metadata.name.clone().unwrap(), pod.metadata.uid.clone().unwrap());
            let runs = self.hosts[host].running.iter().any(|process| process.uid == uid);
            if pod.metadata.deletion_timestamp.is_some() {
                if !runs {
                    let now = Delete { uid: Some(uid), grace_seconds: Some(0), ..Delete::default() };
                    self.cluster.delete("v1", "Pod", "default", &called, now).await;
                }
                continue;
            }
            there.insert(uid.clone());
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if runs
                || phase == Some("Failed")
                || self.hosts[host].agent.as_ref().unwrap().starting.contains_key(&uid)
            {
                continue;
            }
            // Another one of its name must be gone first.
            if self.hosts[host].running.iter().any(|process| process.pod == called) {
                continue;
            }
            let said = self.cluster.fencing(name);
            if !is_held || said.epoch != Some(epoch) || said.is_fenced() {
                continue;
            }
            let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
            let mut promises = conditions.filter(|condition| condition.type_ == STOPS_WITH_LEASE);
            if !promises.any(|promise| promise.message.as_deref() == Some(&*epoch.to_string())) {
                self.cluster.run_by_lease(&called, epoch).await;
            } else {
                // One that doesn't look again may have been held up for longer than a lease.
                let later = self.now + self.chance(if self.faults.heedless { 6_000 } else { 400 });
                self.hosts[host].agent.as_mut().unwrap().starting.insert(uid, (epoch, later));
            }
        }
        let now = self.now;
        let stop = self.chance(self.faults.stop);
        for process in &mut self.hosts[host].running {
            if !there.contains(&process.uid) && process.dead_at.is_none() {
                process.dead_at = Some(now + stop);
            }
        }
        self.hosts[host].agent.as_mut().unwrap().starting.retain(|uid, _| there.contains(uid));
    }

    /// What was decided is done a while later, whatever has become of the host's links meanwhile.
    pub(super) fn start_pods(&mut self, host: usize) {
        let (now, clock, heedless) = (self.now, self.clock(host), self.faults.heedless);
        let pods = self.cluster.list::<Pod>();
        let Host { agent, page, running, .. } = &mut self.hosts[host];
        let agent = agent.as_mut().unwrap();
        let is_held = agent.lease.is_held(clock);
        agent.starting.retain(|uid, (epoch, at)| {
            if now < *at {
                return true;
            }
            // The supervisor looks at the page before it starts anything.
            let by_page = page.epoch == *epoch && clock < page.until && is_held;
            let pod = pods.iter().find(|pod| pod.metadata.uid.as_ref() == Some(uid));
            if by_page || heedless {
                // An agent that is cut off goes on with what it has read.
                let called = pod.map_or("db-0", |pod| pod.metadata.name.as_deref().unwrap());
                running.push(Process { pod: called.to_owned(), uid: uid.clone(), dead_at: None });
            }
            false
        });
    }
}
