//! What a power cut does to a cluster of Holdfast.

use std::time::Duration;

use config::Timeouts;

use crate::span::{Span, time};
use crate::story::{Moment, Story};

/// A winner announces the virtual address, and answers a new caller.
const TAKES_OVER: Span = Span { min_ms: 5, typical_ms: 15, max_ms: 60 };
/// A spare pod that is a process: made, placed, started and ready.
const NEW_POD: Span = Span { min_ms: 50, typical_ms: 100, max_ms: 300 };
/// On an etcd a leader's lease is etcd's shortest for its election timeout of 1 s.
const LEASE_ON_ETCD_MS: u64 = 2000;
/// It says four times a second there that it is alive.
const BEAT_ON_ETCD_MS: u64 = 250;
/// etcd looks twice a second for leases that are over.
const EXPIRY_OF_ETCD_MS: u64 = 500;
/// The etcd of a host that dies may be without a leader itself, with its defaults.
const ELECTION_OF_ETCD_MS: u64 = 400;

pub(crate) const API: &str = "API answers again";
pub(crate) const SERVICE: &str = "service answers again";
pub(crate) const NEW_POD_ANSWERS: &str = "new pod answers";

/// What counts of Holdfast's configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Own {
    pub(crate) timeouts: Timeouts,
    pub(crate) members: usize,
    pub(crate) on_etcd: bool,
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// What was last heard may be as old as the pause between two words.
fn since_last_word(silence: u64, every: u64, late: u64) -> Span {
    Span::new(silence.saturating_sub(every), silence.saturating_sub(every / 2), silence.saturating_add(late))
}

/// The story of a cut of the host that leads, holds the address and runs a pod.
pub(crate) fn story(own: &Own) -> Story {
    let Timeouts { heartbeats, store, nodes, lease, .. } = own.timeouts;
    let told = |field: &str, of: Duration| format!("{field} {}", time(ms(of)));
    let every = told("timeouts.heartbeats.every", heartbeats.every);
    let mut story = Story::default();
    let cut = Moment::default();
    let silent = story.phase(
        cut,
        "the host is silent: its endpoints leave every proxy",
        since_last_word(ms(heartbeats.silent_after), ms(heartbeats.every), 20),
        vec![told("timeouts.heartbeats.silentAfter", heartbeats.silent_after), every.clone()],
        "counted from the last heartbeat that was heard",
    );
    let elected = match own.on_etcd {
        true => story.phase(
            cut,
            "the leader's lease in etcd runs out",
            Span::new(
                LEASE_ON_ETCD_MS - BEAT_ON_ETCD_MS,
                LEASE_ON_ETCD_MS - BEAT_ON_ETCD_MS / 2 + EXPIRY_OF_ETCD_MS / 2,
                LEASE_ON_ETCD_MS + EXPIRY_OF_ETCD_MS + ELECTION_OF_ETCD_MS,
            ),
            vec!["a lease of 2 s, etcd's shortest".into()],
            "counted from the last word of the leader; etcd looks twice a second",
        ),
        false => {
            let (shortest, longest) = (ms(store.election_min), ms(store.election_max));
            let others = u64::try_from(own.members.saturating_sub(1).max(1)).unwrap_or(1);
            let first = shortest.saturating_add(longest.saturating_sub(shortest) / (others + 1));
            let heartbeat = ms(store.heartbeat);
            story.phase(
                cut,
                "the store elects a leader",
                Span::new(
                    shortest.saturating_sub(heartbeat),
                    first.saturating_sub(heartbeat / 2),
                    // Two that stand at once wait again, for twice as long.
                    longest.saturating_mul(3),
                ),
                vec![
                    told("timeouts.store.electionMin", store.election_min),
                    told("timeouts.store.electionMax", store.election_max),
                ],
                "each member draws its patience, counted from the leader's last word; the first one wins, and where two are first at \
                 once, they wait again",
            )
        }
    };
    let api = story.phase(
        elected,
        "the new leader takes the virtual address",
        TAKES_OVER,
        vec!["leadership and address are one".into()],
        "it announces the address and answers",
    );
    story.clock(API, api);
    story.clock(SERVICE, api.and(silent));
    let gone = story.phase(
        cut,
        "the node is NotReady",
        since_last_word(ms(nodes.not_ready_after), ms(heartbeats.every), 50),
        vec![told("timeouts.nodes.notReadyAfter", nodes.not_ready_after), every],
        "counted from the last heartbeat that was heard",
    );
    let started = story.phase(
        gone.and(api),
        "a new pod starts",
        NEW_POD,
        vec!["measured by drills; a container takes as long as its program".into()],
        "made, placed, started and ready, with its image there",
    );
    story.clock(NEW_POD_ANSWERS, started);
    let fenced = story.phase(
        cut,
        "the host's lease is over",
        since_last_word(ms(lease.fenced_after), ms(heartbeats.every), 100),
        vec![told("timeouts.lease.fencedAfter", lease.fenced_after)],
        "from then on nothing that must not run twice runs there, for sure",
    );
    story.clock("host is fenced", fenced);
    story
}
