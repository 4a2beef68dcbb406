//! What to change: each change is tried on the story, and what helps most comes first.

use config::Timeouts;
use serde::Serialize;

use crate::own::Own;
use crate::span::{Span, time};
use crate::story::Story;
use crate::timers::{Finding, Timer, Timers};

/// A change, and what comes of it after those before it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// What to set to what.
    pub change: String,
    /// The clocks that it shortens.
    pub gains: Vec<Gain>,
    /// What it costs.
    pub costs: &'static str,
}

/// What a clock gains.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Gain {
    /// Which clock.
    pub clock: &'static str,
    /// What it shows without the change.
    pub before: Span,
    /// What it shows with it.
    pub after: Span,
}

/// Changes something, and says what; nothing where it is so already.
type Change<T> = fn(&mut T) -> Option<String>;
/// A change, with its costs.
type Candidate<T> = (Change<T>, &'static str);

/// A change that gains less of all clocks together is not worth its words: one part in so many.
const WORTH: u64 = 20;

/// The changes that help, one after the other.
pub(crate) fn advise<T: Clone>(start: &T, story: fn(&T) -> Story, candidates: &[Candidate<T>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut now, mut left) = (start.clone(), candidates.to_vec());
    loop {
        let before = story(&now);
        let tried = left.iter().enumerate().filter_map(|(place, (change, costs))| {
            let mut changed = now.clone();
            let what = change(&mut changed)?;
            let after = story(&changed);
            Some((score(&after), place, changed, what, *costs, after))
        });
        let Some((best, place, changed, what, costs, after)) = tried.min_by_key(|(score, ..)| *score) else {
            break;
        };
        let was = score(&before);
        if best >= was - was / WORTH {
            break;
        }
        let both =
            before.clocks.iter().zip(&after.clocks).filter(|(before, after)| before.span != after.span);
        let gains = both
            .map(|(before, after)| Gain { clock: before.name, before: before.span, after: after.span })
            .collect();
        steps.push(Step { change: what, gains, costs });
        now = changed;
        left.remove(place);
    }
    steps
}

/// What a story is judged by: what is typical counts most, the worst a little.
fn score(story: &Story) -> u64 {
    let worst = story.clocks.iter().fold(0_u64, |sum, clock| sum.saturating_add(clock.span.max_ms));
    (story.typical_sum() / 2).saturating_add(worst / 8)
}

/// Sets a time to `ms`, if it is longer.
fn shorten(timer: &mut Timer, ms: u64) -> Option<String> {
    let told = format!("{}: {} instead of {}", timer.setting, time(ms), time(timer.ms));
    let is_longer = timer.ms > ms;
    timer.ms = timer.ms.min(ms);
    is_longer.then_some(told)
}

/// A time as HAProxy writes it.
fn config_time(ms: u64) -> String {
    if ms > 0 && ms.is_multiple_of(1000) { format!("{}s", ms / 1000) } else { format!("{ms}ms") }
}

/// What an expert would change of upstream's programs.
pub(crate) const UPSTREAM: [Candidate<Timers>; 7] = [
    (
        |timers| {
            let with =
                |inter: Timer| Finding::Checks { inter, after_failure_ms: 500, fall: 2, limit_ms: 500 };
            let inter = |file| Timer { ms: 500, setting: "HAProxy inter", file };
            let (file, told) = match &timers.proxy {
                Finding::NoProxy => return None,
                Finding::Checks { inter, fall, .. } if inter.ms <= 500 && *fall <= 2 => return None,
                Finding::Checks { inter, fall, .. } => {
                    (inter.file.clone(), format!("HAProxy: `inter 500ms fall 2` instead of `inter {} fall {fall}`", config_time(inter.ms)))
                }
                Finding::Blind => (None, "HAProxy: `check inter 500ms fall 2` at every server".into()),
                Finding::Passive { .. } => {
                    (None, "HAProxy with `check inter 500ms fall 2` in nginx' place, which looks at no server by itself".into())
                }
            };
            timers.proxy = with(inter(file));
            Some(told)
        },
        "each proxy connects twice a second to each API server; one that is slow for a second gets no callers for a while",
    ),
    (
        |timers| shorten(&mut timers.toleration, 2000),
        "a host that is unreachable for longer than that loses its pods, a switch's restart included; pods that must stay longer get \
         tolerations of their own",
    ),
    (
        |timers| {
            let told = shorten(&mut timers.grace, 5000)?;
            let _ = (shorten(&mut timers.monitor, 1000), shorten(&mut timers.kubelet, 1000));
            Some(told + ", with --node-monitor-period 1 s and the kubelet's nodeLeaseDurationSeconds 4")
        },
        "each kubelet writes once a second to etcd; one that is slow for four seconds is NotReady",
    ),
    (
        |timers| {
            let told = shorten(&mut timers.idle, 2000);
            let second = shorten(&mut timers.ping, 1000);
            let both = [told, second].into_iter().flatten().collect::<Vec<_>>().join(", ");
            Some(both).filter(|both| !both.is_empty() && !timers.asks_locally)
        },
        "a question each two seconds on every connection; set it for kubelets, too. An API server that is slow for a second loses its \
         watchers, who all come back at once",
    ),
    (
        |timers| {
            let (advert, _) = timers.address.as_mut()?;
            shorten(advert, 200).map(|told| told + " (on all hosts, with vrrp_version 3)")
        },
        "a host that is late by 0.6 s loses the address, and comes back with it",
    ),
    (
        |timers| {
            let told = shorten(&mut timers.election, 500)?;
            let heartbeat = timers.heartbeat.ms.min(50);
            timers.heartbeat.ms = heartbeat;
            Some(format!("{told}, with heartbeat-interval {heartbeat} ms"))
        },
        "only where the members are within a few milliseconds of each other and their disks sync within 100 ms: a slower disk costs \
         elections",
    ),
    (
        |timers| {
            let told = shorten(&mut timers.lease, 5000)?;
            let _ = (shorten(&mut timers.renew_deadline, 4000), shorten(&mut timers.retry, 1000));
            Some(told + ", with --leader-elect-renew-deadline 4 s and --leader-elect-retry-period 1 s")
        },
        "a write each second; a controller-manager that can't write for 4 s ends and is started again",
    ),
];

fn by_default(
    own: &mut Own,
    told: &str,
    field: fn(&mut Timeouts) -> &mut std::time::Duration,
) -> Option<String> {
    let usual = *field(&mut Timeouts::default());
    let now = field(&mut own.timeouts);
    let (was, usual_ms) = (now.as_millis() as u64, usual.as_millis() as u64);
    let is_longer = *now > usual;
    *now = usual.min(*now);
    is_longer.then(|| {
        format!("timeouts.{told}: {} instead of {}, which is the default", time(usual_ms), time(was))
    })
}

/// What may be longer than it has to be with Holdfast: its own defaults are as short as one data centre bears.
pub(crate) const OWN: [Candidate<Own>; 4] = [
    (
        |own| {
            let longest = by_default(own, "store.electionMax", |of| &mut of.store.election_max);
            let shortest = by_default(own, "store.electionMin", |of| &mut of.store.election_min);
            let all: Vec<String> = [shortest, longest].into_iter().flatten().collect();
            Some(all.join(", ")).filter(|all| !all.is_empty())
        },
        "a message and its sync must take less than a tenth of it: 15 ms",
    ),
    (
        |own| by_default(own, "heartbeats.silentAfter", |of| &mut of.heartbeats.silent_after),
        "a host that is late by a quarter of a second gets no callers for as long; free to undo",
    ),
    (
        |own| by_default(own, "nodes.notReadyAfter", |of| &mut of.nodes.not_ready_after),
        "a host that pauses for longer gets spares for its stateless pods",
    ),
    (
        |own| by_default(own, "lease.fencedAfter", |of| &mut of.lease.fenced_after),
        "what must not run twice has less time to be stopped; lease.heldFor has to be shorter still",
    ),
];
