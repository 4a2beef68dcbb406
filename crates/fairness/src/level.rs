//! PriorityLevelConfigurations, and how the seats of a server are dealt out among them.

use std::sync::Arc;

use serde::Deserialize;

/// A priority level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PriorityLevel {
    pub(crate) name: Arc<str>,
    pub(crate) uid: Arc<str>,
    /// Whether its requests run at once, always.
    pub(crate) exempt: bool,
    /// Its part of the seats, in relation to others'.
    pub(crate) shares: u32,
    /// Which part of its seats others may use while it doesn't need them.
    pub(crate) lendable_percent: u32,
    /// How far it may go above its seats; nothing for as far as others lend.
    pub(crate) borrowing_percent: Option<u32>,
    /// Its queues; nothing where a request that finds no seat is refused.
    pub(crate) queuing: Option<Queuing>,
}

/// A level's queues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queuing {
    pub(crate) queues: u32,
    /// How many of them a flow is dealt.
    pub(crate) hand: u32,
    /// How many requests wait in one at most.
    pub(crate) length: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Spec {
    #[serde(rename = "type")]
    kind: String,
    limited: Option<Limited>,
    exempt: Option<Limited>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Limited {
    nominal_concurrency_shares: Option<u32>,
    lendable_percent: Option<u32>,
    borrowing_limit_percent: Option<u32>,
    limit_response: Option<Response>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Response {
    queuing: Option<StoredQueuing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct StoredQueuing {
    queues: u32,
    hand_size: u32,
    queue_length_limit: u32,
}

impl PriorityLevel {
    pub(crate) fn new(name: &str, uid: &str, spec: Spec) -> Self {
        let exempt = spec.kind == "Exempt";
        let part = if exempt { spec.exempt } else { spec.limited }.unwrap_or_default();
        let queuing = part.limit_response.and_then(|response| response.queuing).map(|stored| {
            let queues = stored.queues.max(1);
            Queuing {
                queues,
                hand: stored.hand_size.clamp(1, queues),
                length: stored.queue_length_limit.max(1),
            }
        });
        PriorityLevel {
            name: name.into(),
            uid: uid.into(),
            exempt,
            shares: part.nominal_concurrency_shares.unwrap_or(if exempt { 0 } else { 30 }),
            lendable_percent: part.lendable_percent.unwrap_or(0).min(100),
            borrowing_percent: part.borrowing_limit_percent,
            queuing,
        }
    }

    /// The level of what nothing limits, for while nobody has written it.
    pub(crate) fn exempt() -> Self {
        PriorityLevel::new("exempt", "", Spec { kind: "Exempt".into(), ..Spec::default() })
    }

    /// The level of what no schema means, for while nobody has written it.
    pub(crate) fn catch_all() -> Self {
        let limited = Limited { nominal_concurrency_shares: Some(5), ..Limited::default() };
        PriorityLevel::new(
            "catch-all",
            "",
            Spec { kind: "Limited".into(), limited: Some(limited), exempt: None },
        )
    }
}

/// A level's seats, of all that a server has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seats {
    /// Those that are its own.
    pub(crate) nominal: u32,
    /// Those of its own that it never lends.
    pub(crate) lower: u32,
    /// The most that it ever has.
    pub(crate) upper: u32,
}

/// Deals a server's seats out in relation to the levels' shares (upstream's `updateConfig`: nominal limits are
/// rounded up, what may be lent and borrowed to the nearest).
pub(crate) fn deal_out(total: u32, levels: &[PriorityLevel]) -> Vec<Seats> {
    let sum: u64 = levels.iter().map(|level| u64::from(level.shares)).sum();
    let all = u64::from(total);
    let percent = |seats: u64, percent: u32| (seats * u64::from(percent) + 50) / 100;
    let number = |seats: u64| u32::try_from(seats).unwrap_or(u32::MAX);
    let seats = levels.iter().map(|level| {
        let nominal = (all * u64::from(level.shares)).div_ceil(sum.max(1));
        let lendable = percent(nominal, level.lendable_percent);
        let upper = level.borrowing_percent.map_or(all, |limit| nominal + percent(nominal, limit));
        Seats {
            nominal: number(nominal),
            lower: number(nominal - lendable),
            upper: number(upper.max(nominal)),
        }
    });
    seats.collect()
}
