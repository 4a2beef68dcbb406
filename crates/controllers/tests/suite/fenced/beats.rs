//! What hosts hear of each other, and what they take for sure by that.

use std::time::Instant;

use membership::lease::{Acknowledged, Known, Terms, View, Word};

use super::{Agent, HOSTS, Host, Page, SILENT, World, members, number, others};

/// Whether a host hears fewer than half of the hosts, itself counted.
fn is_deaf(host: usize, agent: &Agent, now: Instant) -> bool {
    let is_heard = |(other, at): &(&usize, &Instant)| **other != host && now.duration_since(**at) < SILENT;
    agent.beats.iter().filter(is_heard).count() < HOSTS.len() / 2
}

impl World {
    /// All beats of a step, each heard in the same one, or never.
    pub(super) fn beat(&mut self) {
        let view = View::of(&members(), self.faults.terms);
        // A host that takes its lease to hold longer doesn't notice: in the program, others' words wouldn't count for it.
        let own_view = View::of(&members(), Terms { lease: self.faults.lease, ..self.faults.terms });
        let known: Vec<Known> = HOSTS
            .iter()
            .map(|host| {
                let said = self.cluster.fencing(host);
                Known { epoch: said.epoch.filter(|epoch| *epoch > 0), fenced: said.fenced }
            })
            .collect();
        let mut beats = Vec::new();
        let wall = self.cluster.now.instant;
        for host in (0..HOSTS.len()).filter(|host| self.acts(*host)).collect::<Vec<_>>() {
            let clock = self.clock(host);
            let agent = self.hosts[host].agent.as_mut().unwrap();
            agent.sequence += 1;
            agent.lease.sent(agent.sequence, clock);
            let what = Acknowledged {
                incarnation: agent.incarnation,
                epoch: agent.lease.epoch(),
                sequence: agent.sequence,
            };
            let words = agent.ballot.words(self.begin + clock);
            let words: Vec<(String, Word)> = words.map(|(host, word)| (host.to_owned(), word)).collect();
            let acknowledged: Vec<_> = HOSTS.iter().map(|to| agent.ballot.acknowledges(to)).collect();
            beats.push((host, what, words, acknowledged, is_deaf(host, agent, wall)));
        }
        for host in (0..HOSTS.len()).filter(|host| self.acts(*host)).collect::<Vec<_>>() {
            let (clock, instant, fence) =
                (self.clock(host), self.begin + self.clock(host), self.faults.terms.fence);
            let reaches = self.reaches(host);
            let Host { agent, page, running, promises, epoch, .. } = &mut self.hosts[host];
            let agent = agent.as_mut().unwrap();
            let is_deaf = is_deaf(host, agent, wall);
            for (from, what, words, acknowledged, says_deaf) in &beats {
                if *from == host || self.cut.contains(&(*from, host)) {
                    continue;
                }
                let name = HOSTS[*from];
                agent.beats.insert(*from, wall);
                if !says_deaf || is_deaf {
                    agent.heard.insert(*from, wall);
                    agent.ballot.beat(name, *what, instant);
                    agent.count.heard(name, what.epoch);
                } else {
                    agent.count.heard_deaf(name, what.epoch);
                }
                if let Some(what) = acknowledged[host] {
                    agent.lease.acknowledged(name, own_view, what, clock);
                }
                for (about, word) in words {
                    if let Word::Never(epoch) = word
                        && about == HOSTS[host]
                    {
                        agent.lease.refused(*epoch);
                    }
                    agent.count.word(name, view, about, *word, instant);
                }
            }
            if reaches {
                others(host).for_each(|other| agent.ballot.told(other, known[number(other)]));
            }
            for (about, word) in agent.ballot.words(instant) {
                agent.count.word(HOSTS[host], view, about, word, instant);
            }
            let count = &agent.count;
            agent.ballot.check(instant, |host| count.is_missed(host, fence, instant));
            promises.clone_from(agent.ballot.promises());
            agent.ballot.kept(promises.clone());
            if agent.lease.is_held(clock) {
                *page = Page { epoch: agent.lease.epoch(), until: agent.lease.until().unwrap() };
            } else if agent.lease.is_over() && running.is_empty() {
                agent.lease.begin();
            }
            *epoch = agent.lease.epoch();
        }
    }
}
