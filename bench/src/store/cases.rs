//! What is measured, and one measurement of it.

use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use nix::sys::signal::Signal;

use super::budget::Cost;
use super::histogram::{Histogram, median};
use super::load::{Share, Work};
use super::member::{Order, Report};
use super::members::{MEMBERS, Members, Whose};

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name.
    pub name: &'static str,
    /// What is asked, in a few words.
    pub about: &'static str,
    question: Question,
}

#[derive(Debug, Clone, Copy)]
enum Question {
    /// How much work this many clients get done; all of them at the leader if `at_leader`.
    Load { work: Work, clients: usize, at_leader: bool, filled: usize },
    /// How long writes stop when the leader gets a signal.
    LeaderLoss(Signal),
    /// What the members' memory holds with this many keys in it.
    Memory(usize),
}

/// Numbers with their names. The first one is the one that is compared.
pub type Figures = Vec<(&'static str, f64)>;

/// How long writers go on once their leader is lost: longer than etcd's requests take to fail.
const AFTER_LOSS: Duration = Duration::from_secs(10);

const fn load(work: Work, clients: usize, filled: usize) -> Question {
    Question::Load { work, clients, at_leader: false, filled }
}

/// All cases.
pub const CASES: [Case; 12] = [
    Case {
        name: "put-1",
        about: "1 client, at the leader",
        question: Question::Load { work: Work::Put, clients: 1, at_leader: true, filled: 0 },
    },
    Case { name: "put-64", about: "64 clients", question: load(Work::Put, 64, 0) },
    Case { name: "put-1000", about: "1,000 clients", question: load(Work::Put, 1000, 0) },
    Case {
        name: "get-linearizable",
        about: "64 clients, as new as any acknowledged write",
        question: load(Work::Get, 64, 1000),
    },
    Case {
        name: "get-stale",
        about: "64 clients, as the member knows it (etcd: serializable)",
        question: load(Work::GetStale, 64, 1000),
    },
    Case {
        name: "range-1000",
        about: "12 clients, linearizable, 1,000 keys each time",
        question: load(Work::Range(1000), 12, 10_000),
    },
    Case {
        name: "range-10000",
        about: "12 clients, linearizable, 10,000 keys each time",
        question: load(Work::Range(10_000), 12, 10_000),
    },
    Case {
        name: "watch-1000",
        about: "events delivered to 1,000 watchers of 100 keys that 24 clients write; from put to event",
        question: load(Work::Watch(1000), 24, 0),
    },
    Case {
        name: "watch-10000",
        about: "events delivered to 10,000 watchers of 100 keys that 24 clients write; from put to event",
        question: load(Work::Watch(10_000), 24, 0),
    },
    Case {
        name: "leader-loss-kill",
        about: "24 writers, the leader's process gets SIGKILL; seen by the writers at the other members",
        question: Question::LeaderLoss(Signal::SIGKILL),
    },
    Case {
        name: "leader-loss-stop",
        about: "the same with SIGSTOP",
        question: Question::LeaderLoss(Signal::SIGSTOP),
    },
    Case {
        name: "memory-100000",
        about: "resident memory of a member, 100,000 keys of 1 KiB put",
        question: Question::Memory(100_000),
    },
];

/// How long a measurement takes.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Nothing is counted at first.
    pub warm_up: Duration,
    /// Then it is.
    pub counted: Duration,
}

impl Case {
    /// What it takes, by estimate.
    pub fn cost(&self) -> Cost {
        /// Three members, their certificates and their first leader.
        const START: f64 = 1.5;
        /// Keys filled a second: between what etcd and this store take.
        const FILLED: f64 = 5000.0;
        match self.question {
            Question::Load { filled, .. } => {
                Cost { fixed: START + filled as f64 / FILLED, has_load: true, rounds: 3 }
            }
            Question::LeaderLoss(_) => {
                Cost { fixed: START + 1.0 + AFTER_LOSS.as_secs_f64(), has_load: false, rounds: 2 }
            }
            // What keys take is no matter of luck.
            Question::Memory(keys) => {
                Cost { fixed: START + keys as f64 / FILLED, has_load: false, rounds: 1 }
            }
        }
    }

    /// Measures once, with members of its own.
    pub fn measure(&self, whose: Whose, times: Times, dir: &Path) -> anyhow::Result<Figures> {
        let mut members = Members::start(whose, dir)?;
        match self.question {
            Question::Load { work, clients, at_leader, filled } => {
                fill(&mut members, filled)?;
                let shares = if at_leader {
                    let leader = members.leader()?;
                    std::array::from_fn(|n| if n == leader { clients } else { 0 })
                } else {
                    spread(clients)
                };
                measure_load(&mut members, work, shares, filled, times)
            }
            Question::LeaderLoss(signal) => measure_leader_loss(&mut members, signal, times),
            Question::Memory(keys) => {
                fill(&mut members, keys)?;
                let resident = members.resident_mb()?;
                let largest = resident.iter().copied().fold(0.0, f64::max);
                Ok(vec![("resident_mb", median(resident)), ("largest_mb", largest)])
            }
        }
    }
}

/// A number of clients or watchers over the members.
fn spread(count: usize) -> [usize; MEMBERS] {
    std::array::from_fn(|n| (count + MEMBERS - 1 - n) / MEMBERS)
}

fn fill(members: &mut Members, keys: usize) -> anyhow::Result<()> {
    /// Enough to keep both sides busy.
    const CLIENTS: usize = 64;
    if keys > 0 {
        members.all(|n| Order::Fill { from: n, until: keys, clients: CLIENTS })?;
    }
    Ok(())
}

fn orders(
    work: Work,
    shares: [usize; MEMBERS],
    filled: usize,
    times: Times,
    retry: bool,
) -> Vec<Option<Order>> {
    let mut first_client = 0;
    let mut order = |n: usize| {
        let clients = shares[n];
        let work = match work {
            Work::Watch(watchers) => Work::Watch(spread(watchers)[n]),
            work => work,
        };
        let Times { warm_up, counted } = times;
        let share = Share { work, clients, first_client, filled, warm_up, counted, retry };
        first_client += clients;
        (clients > 0).then_some(Order::Run(share))
    };
    (0..MEMBERS).map(&mut order).collect()
}

fn measure_load(
    members: &mut Members,
    work: Work,
    shares: [usize; MEMBERS],
    filled: usize,
    times: Times,
) -> anyhow::Result<Figures> {
    members.order(&orders(work, shares, filled, times, false))?;
    let mut all = Histogram::default();
    for member in (0..MEMBERS).filter(|n| shares[*n] > 0) {
        let Report::Yield(share) = members.report(member)? else { bail!("a load without a yield") };
        all.merge(&share.histogram);
    }
    anyhow::ensure!(all.total() > 0, "nothing was done in the time that was counted");
    Ok(vec![
        ("per_s", all.total() as f64 / times.counted.as_secs_f64()),
        ("p50_ms", all.percentile_ms(50.0)),
        ("p99_ms", all.percentile_ms(99.0)),
    ])
}

fn measure_leader_loss(members: &mut Members, signal: Signal, times: Times) -> anyhow::Result<Figures> {
    let leader = members.leader()?;
    let times = Times { counted: AFTER_LOSS, ..times };
    members.order(&orders(Work::Put, spread(24), 0, times, true))?;
    pause(times.warm_up + Duration::from_secs(1));
    members.signal(leader, signal)?;
    let (mut stopped, mut longest) = (0.0, 0.0_f64);
    for member in (0..MEMBERS).filter(|n| *n != leader) {
        let Report::Yield(share) = members.report(member)? else { bail!("a load without a yield") };
        stopped = share.longest_stop_ms.max(stopped);
        longest = share.histogram.largest_ms().max(longest);
    }
    Ok(vec![("stopped_ms", stopped), ("longest_ms", longest)])
}

#[allow(clippy::disallowed_methods, reason = "the load runs for a while before the leader is lost")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_spread_evenly() {
        for (count, shares) in [(0, [0, 0, 0]), (1, [1, 0, 0]), (64, [22, 21, 21]), (1000, [334, 333, 333])] {
            assert_eq!(spread(count), shares);
        }
    }

    #[test]
    fn no_two_clients_of_a_cluster_are_the_same() {
        let times = Times { warm_up: Duration::ZERO, counted: Duration::ZERO };
        let orders = orders(Work::Watch(10), spread(7), 0, times, false);
        let shares = orders.iter().flatten().map(|order| match order {
            Order::Run(share) => (share.work, share.first_client, share.clients),
            order => panic!("{order:?}"),
        });
        let expected = [(Work::Watch(4), 0, 3), (Work::Watch(3), 3, 2), (Work::Watch(3), 5, 2)];
        assert_eq!(shares.collect::<Vec<_>>(), expected);
    }
}
