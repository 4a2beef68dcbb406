//! What a power cut does to a cluster of upstream's programs.

use crate::span::{NEVER, Span};
use crate::story::{Moment, Story};
use crate::timers::{Finding, Timers};

/// A read that etcd lost while nobody led is sent again after this (`readIndexRetryTime` in its server).
const READ_AGAIN_MS: u64 = 500;
/// The kernel gives an address up that is in its own network after three questions, one a second.
const ADDRESS_GIVEN_UP_MS: u64 = 3000;
/// From a written EndpointSlice to the proxies' watches.
const ENDPOINTS: Span = Span { min_ms: 50, typical_ms: 200, max_ms: 1000 };
/// A pod whose image is there: made, placed, started and ready. Upstream's own measurements have a median of 2.2 s with a
/// hundred hosts, and promise 5 s.
const NEW_POD: Span = Span { min_ms: 1000, typical_ms: 2000, max_ms: 5000 };
/// Go asks an idle connection by TCP after 15 s, and gives up after nine questions 15 s apart.
const KEEP_ALIVE: Span = Span { min_ms: 135_000, typical_ms: 142_500, max_ms: 150_000 };

/// The names of the clocks, by which tests and advice find them.
pub(crate) const API: &str = "API answers again";
pub(crate) const API_STEADY: &str = "API answers every time";
pub(crate) const SERVICE: &str = "service answers every time";
pub(crate) const NEW_POD_ANSWERS: &str = "new pod answers";

/// The story of a cut of the host that leads etcd and holds the virtual address.
pub(crate) fn story(timers: &Timers) -> Story {
    let mut story = Story::default();
    let cut = Moment::default();
    let elected = story.phase(
        cut,
        "etcd elects a leader",
        election(timers),
        vec![timers.election.told(), timers.heartbeat.told()],
        "each member waits for one to two election timeouts after the last heartbeat; the first one wins, and where two are first \
         at once, all wait again",
    );
    let read = story.phase(
        elected,
        "API servers read from etcd again",
        Span::new(0, READ_AGAIN_MS / 2, READ_AGAIN_MS),
        vec!["etcd's own: 500 ms".into()],
        "a read that was lost while nobody led is repeated",
    );
    let mut api = read;
    if let Some((advert, priority)) = &timers.address {
        let skew = (256 - (*priority).clamp(1, 255)).saturating_mul(advert.ms) / 256;
        let silent = advert.ms.saturating_mul(3).saturating_add(skew);
        let moved = story.phase(
            cut,
            "the virtual address moves",
            Span::new(silent.saturating_sub(advert.ms), silent.saturating_sub(advert.ms / 2), silent),
            vec![advert.told(), format!("priority {priority} of the host that takes over")],
            "three announcements are missed, and the less the priority, the longer a host holds back",
        );
        api = api.and(moved);
    }
    story.clock(API, api);
    let steady = match found(&timers.proxy) {
        None => api,
        Some((takes, settings, why)) => {
            let found = story.phase(cut, "proxies leave the dead API server alone", takes, settings, why);
            api.and(found)
        }
    };
    story.clock(API_STEADY, steady);

    let leads = story.phase(
        cut,
        "a controller-manager leads",
        Span::new(0, 0, timers.lease.ms.saturating_add(timers.retry.ms)),
        vec![timers.lease.told(), timers.retry.told()],
        "nothing where it leads on another host; else its lease must run out, and hosts' grace is counted anew",
    );
    let (grace, period, renewal) = (timers.grace.ms, timers.monitor.ms, timers.kubelet.ms);
    let silent = story.phase(
        leads,
        "the node is NotReady",
        Span::new(
            grace.saturating_sub(renewal),
            grace.saturating_add(period / 2).saturating_sub(renewal / 2),
            grace.saturating_add(period),
        ),
        vec![timers.grace.told(), timers.monitor.told(), timers.kubelet.told()],
        "the grace runs from the kubelet's last renewal of its Lease, and is looked at once in a period",
    );
    // What nobody can read, nobody acts on.
    let silent = silent.and(api);
    let dropped = story.phase(
        silent,
        "endpoints leave the services",
        ENDPOINTS + Span::new(0, timers.sync.ms / 4, timers.sync.ms),
        vec![timers.sync.told()],
        "the EndpointSlice is written, and every kube-proxy follows",
    );
    let mut heard = cut;
    if !timers.asks_locally {
        let idle = timers.idle.ms;
        let takes = match idle {
            0 => KEEP_ALIVE,
            _ => {
                let ping = timers.ping.ms;
                Span::new(ping, ping.saturating_add(idle / 2), ping.saturating_add(idle))
            }
        };
        heard = story.phase(
            cut,
            "kube-proxy gives up its dead connection",
            takes,
            vec![timers.idle.told(), timers.ping.told()],
            "its HTTP/2 connection led to the lost host: after so long without a word it asks, and waits for an answer; until then it \
             knows of no change",
        );
    }
    story.clock(SERVICE, dropped.and(heard));
    let evicted = story.phase(
        silent,
        "the lost pod is tolerated",
        Span::fixed(timers.toleration.ms),
        vec![timers.toleration.told()],
        "pods stay on an unreachable node for as long as they tolerate its taint",
    );
    let started = story.phase(
        evicted,
        "a new pod starts",
        NEW_POD,
        vec!["upstream's promise: 5 s at most".into()],
        "made, placed, started and ready, with its image there",
    );
    story.clock(NEW_POD_ANSWERS, started.and(heard));
    story
}

fn election(timers: &Timers) -> Span {
    let (timeout, heartbeat) = (timers.election.ms, timers.heartbeat.ms.max(1));
    // etcd counts in heartbeats: it draws one of so many ticks from the timeout on.
    let longest_draw = timeout.saturating_sub(heartbeat);
    let others = u64::try_from(timers.members.saturating_sub(1).max(1)).unwrap_or(1);
    let first = timeout.saturating_add(longest_draw / (others + 1));
    // Two rounds: that two are first at once happens in one of ten.
    let twice = timeout.saturating_add(longest_draw).saturating_mul(2);
    Span::new(timeout.saturating_sub(heartbeat), first.saturating_sub(heartbeat / 2), twice)
}

fn found(finding: &Finding) -> Option<(Span, Vec<String>, &'static str)> {
    match finding {
        Finding::NoProxy => None,
        Finding::Checks { inter, after_failure_ms, fall, limit_ms } => {
            let all = |each: u64| {
                let checks = fall.saturating_mul(each);
                checks.saturating_add(fall.saturating_sub(1).saturating_mul(*after_failure_ms))
            };
            let quick = all((*limit_ms).min(ADDRESS_GIVEN_UP_MS));
            let takes =
                Span::new(quick, quick.saturating_add(inter.ms / 2), all(*limit_ms).saturating_add(inter.ms));
            let told = format!("fall {fall}, each check waits {} at most", crate::span::time(*limit_ms));
            let why = "until the next check, and then one pause less than checks that fail; a host that is gone from the same network is \
                       given up by the kernel after 3 s";
            Some((takes, vec![inter.told(), told], why))
        }
        Finding::Passive { connect } => {
            let takes = Span::new(connect.ms, connect.ms, connect.ms.saturating_mul(2));
            let why = "nobody asks the servers: callers' own connections must fail first, and again after each fail_timeout";
            Some((takes, vec![connect.told()], why))
        }
        Finding::Blind => Some((
            Span::fixed(NEVER),
            vec!["no health check".into()],
            "nobody ever finds out; each caller who gets the dead server waits",
        )),
    }
}
