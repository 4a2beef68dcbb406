//! The gate under simulated time: clients that ask too much, and those that must not suffer from it.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::classes::Classes;
use crate::deal::flow;
use crate::gate::{Arrival, Gate, Seat, Started};
use crate::level::{PriorityLevel, deal_out};
use crate::queues::Ticket;
use crate::{Request, Target};

fn levels() -> Vec<PriorityLevel> {
    let part = |shares: u32, lendable: u32, queues: u32, hand: u32| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": 50});
        let response = if queues == 0 { json!({"type": "Reject"}) } else { json!({"queuing": queuing}) };
        json!({"type": "Limited", "limited": {"nominalConcurrencyShares": shares, "lendablePercent": lendable,
            "limitResponse": response}})
    };
    let level = |name: &str, spec: Value| PriorityLevel::new(name, "", serde_json::from_value(spec).unwrap());
    vec![
        PriorityLevel::exempt(),
        level("catch-all", part(5, 0, 0, 0)),
        level("global-default", part(20, 50, 128, 6)),
        level("leader-election", part(10, 0, 16, 4)),
        level("node-high", part(40, 25, 64, 6)),
        level("system", part(30, 33, 64, 6)),
        level("workload-high", part(40, 50, 128, 6)),
        level("workload-low", part(100, 90, 128, 6)),
    ]
}

/// A client: in which level, which flow, how many seats, how long, how often, how many at once at most.
#[derive(Clone, Copy)]
struct Client {
    level: &'static str,
    flow: &'static str,
    seats: u32,
    takes: Duration,
    every: Duration,
    at_once: usize,
}

#[derive(Default, Debug)]
struct Tale {
    longest: Duration,
    done: u64,
    refused: u64,
}

/// What happens next: a client asks, or a request is over.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    Ask(usize),
    Over(u64),
}

struct World {
    gate: Gate,
    clients: Vec<Client>,
    tales: Vec<Tale>,
    under_way: Vec<usize>,
    events: BinaryHeap<Reverse<(Instant, Next)>>,
    waiting: HashMap<Ticket, (usize, Instant)>,
    running: HashMap<u64, (usize, Seat)>,
    count: u64,
}

impl World {
    fn run(total: u32, clients: &[Client], time: Duration) -> Vec<Tale> {
        let mut world = World {
            gate: Gate::new(total, &levels()),
            clients: clients.to_vec(),
            tales: clients.iter().map(|_| Tale::default()).collect(),
            under_way: vec![0; clients.len()],
            events: BinaryHeap::new(),
            waiting: HashMap::new(),
            running: HashMap::new(),
            count: 0,
        };
        #[allow(clippy::disallowed_methods, reason = "any moment will do to begin at")]
        let begin = Instant::now();
        for at in 0..clients.len() {
            world.events.push(Reverse((begin, Next::Ask(at))));
        }
        while let Some(Reverse((now, next))) = world.events.pop() {
            if now > begin + time {
                break;
            }
            match next {
                Next::Ask(at) => world.ask(at, now),
                Next::Over(number) => {
                    let (at, seat) = world.running.remove(&number).unwrap();
                    world.under_way[at] -= 1;
                    world.tales[at].done += 1;
                    let started = world.gate.end(&seat, now);
                    world.started(started, now);
                }
            }
        }
        // A request that still waits has waited at least until now.
        for (at, since) in world.waiting.values() {
            let longest = &mut world.tales[*at].longest;
            *longest = (*longest).max(begin + time - *since);
        }
        world.tales
    }

    fn ask(&mut self, at: usize, now: Instant) {
        let client = self.clients[at];
        self.events.push(Reverse((now + client.every, Next::Ask(at))));
        if self.under_way[at] >= client.at_once {
            return;
        }
        match self.gate.arrive(client.level, flow(client.level, client.flow), client.seats, now) {
            Arrival::Refused(_) => self.tales[at].refused += 1,
            Arrival::Waits(ticket) => {
                self.under_way[at] += 1;
                self.waiting.insert(ticket, (at, now));
            }
            Arrival::Runs(seat) => {
                self.under_way[at] += 1;
                self.runs(at, seat, now);
            }
        }
    }

    fn started(&mut self, started: Started, now: Instant) {
        for (ticket, seat) in started {
            let (at, since) = self.waiting.remove(&ticket).unwrap();
            let longest = &mut self.tales[at].longest;
            *longest = (*longest).max(now - since);
            self.runs(at, seat, now);
        }
    }

    fn runs(&mut self, at: usize, seat: Seat, now: Instant) {
        self.count += 1;
        self.running.insert(self.count, (at, seat));
        self.events.push(Reverse((now + self.clients[at].takes, Next::Over(self.count))));
    }
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn a_user_who_asks_too_much_delays_neither_nodes_nor_controllers() {
    let noisy = |level, flow, seats| Client { level, flow, seats, takes: MS * 500, every: MS, at_once: 2000 };
    let quiet =
        |level, flow, at_once| Client { level, flow, seats: 1, takes: MS * 20, every: MS * 10, at_once };
    let clients = [
        noisy("global-default", "noisy", 1),
        noisy("workload-low", "lists", 10),
        quiet("node-high", "system:node:n1", 40),
        quiet("leader-election", "system:kube-scheduler", 5),
        quiet("workload-high", "kube-system", 40),
        quiet("system", "system:node:n2", 30),
    ];
    let tales = World::run(600, &clients, Duration::from_secs(60));
    for tale in &tales[2..] {
        assert_eq!((tale.longest, tale.refused), (Duration::ZERO, 0), "what is never lent is there at once");
        assert!(tale.done > 5_900, "{tale:?}");
    }
    // 49 seats of its own for a minute, half a second each.
    assert!(tales[0].done > 49 * 120 * 5 / 4, "idle levels lend: {:?}", tales[0]);
    assert!(tales[1].done > 2_000, "{:?}", tales[1]);
    assert!(tales[0].refused > 0, "{:?}", tales[0]);
}

#[test]
fn a_level_that_wants_its_seats_back_has_them_within_one_request() {
    let clients = [
        Client { level: "global-default", flow: "a", seats: 1, takes: MS * 500, every: MS, at_once: 2000 },
        Client { level: "workload-low", flow: "b", seats: 1, takes: MS * 100, every: MS * 2, at_once: 200 },
    ];
    let tales = World::run(600, &clients, Duration::from_secs(20));
    assert!(tales[1].longest <= MS * 500, "{:?}", tales[1]);
    assert_eq!(tales[1].refused, 0);
}

#[test]
fn within_a_level_one_flow_waits_for_itself_alone() {
    let noisy =
        Client { level: "global-default", flow: "a", seats: 1, takes: MS * 100, every: MS / 4, at_once: 400 };
    let quiet = Client { flow: "b", every: MS * 50, at_once: 5, ..noisy };
    let tales = World::run(100, &[noisy, quiet], Duration::from_secs(30));
    assert!(tales[1].longest <= MS * 100, "no longer than for a seat to become free: {tales:?}");
    assert_eq!(tales[1].refused, 0, "{tales:?}");
    assert!(tales[0].refused > 0 || tales[0].longest > MS * 300, "{tales:?}");
}

#[test]
fn wide_and_narrow_requests_of_two_flows_share_seats_in_halves() {
    let wide =
        Client { level: "workload-low", flow: "a", seats: 3, takes: MS * 50, every: MS / 2, at_once: 200 };
    let narrow = Client { flow: "b", seats: 1, ..wide };
    let tales = World::run(60, &[wide, narrow], Duration::from_secs(30));
    // Three seats are as wide as a request may be in a level of 25.
    let ratio = (tales[0].done * 3) as f64 / tales[1].done as f64;
    assert!((0.9..1.1).contains(&ratio), "{ratio} {tales:?}");
}

#[test]
fn seats_are_dealt_out_as_upstream_does() {
    let levels = levels();
    let seats = deal_out(600, &levels);
    let of = |name: &str| {
        let at = levels.iter().position(|level| &*level.name == name).unwrap();
        (seats[at].nominal, seats[at].lower, seats[at].upper)
    };
    // As the metrics of a kube-apiserver with its defaults say.
    assert_eq!(of("global-default"), (49, 24, 600));
    assert_eq!(of("workload-low"), (245, 24, 600));
    assert_eq!(of("node-high"), (98, 73, 600));
    assert_eq!(of("catch-all"), (13, 13, 600));
    assert_eq!(of("exempt"), (0, 0, 600));
}

#[test]
fn requests_survive_that_their_level_changes_or_goes() {
    let mut levels = levels();
    #[allow(clippy::disallowed_methods, reason = "any moment will do to begin at")]
    let now = Instant::now();
    let mut gate = Gate::new(10, &levels);
    let mut seats = Vec::new();
    let mut waiting = 0;
    for n in 0..40 {
        match gate.arrive("workload-low", n % 3, 1, now) {
            Arrival::Runs(seat) => seats.push(seat),
            Arrival::Waits(_) => waiting += 1,
            Arrival::Refused(_) => {}
        }
    }
    assert!(waiting > 10 && seats.len() > 3, "{waiting} {}", seats.len());
    levels.retain(|level| &*level.name != "workload-low");
    seats.extend(gate.reconfigure(&levels, now).into_iter().map(|(_, seat)| seat));
    let mut ended = 0;
    while let Some(seat) = seats.pop() {
        ended += 1;
        seats.extend(gate.end(&seat, now).into_iter().map(|(_, seat)| seat));
    }
    assert!(ended >= waiting, "everybody who waited ran");
    assert!(gate.standing().all(|standing| standing.level != "workload-low" && standing.used == 0));
}

#[test]
fn without_any_schema_everything_is_the_last_ones() {
    let classes = Classes::of(&store::State::default());
    let groups = ["system:masters".to_owned()];
    let request = Request { user: "a", groups: &groups, verb: "get", target: Target::Path("/x") };
    assert_eq!(&*classes.class(&request).0.name, "catch-all");
}
