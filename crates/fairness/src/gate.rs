//! Who may start: a function of what arrives, what ends, and when.
//!
//! Every level has seats of its own, part of which it lends: those of all levels are the pool. A request takes a seat
//! that its level never lends, else one from the pool; while somebody waits who has a right to a lent seat, nobody
//! borrows. So a level gets its own back as soon as requests end, and what it never lends at once.

use std::sync::Arc;
use std::time::Instant;

use crate::deal::deal;
use crate::level::{PriorityLevel, Seats, deal_out};
use crate::queues::{Queues, Ticket, Waiting};

/// The part of a level's seats that one request takes at most, in percent (as upstream).
const WIDEST_PERCENT: u32 = 15;

/// Seats that are taken; they have to be given back with [`Gate::end`].
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) level: Arc<str>,
    queue: u32,
    pub(crate) seats: u32,
    started: Instant,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Refusal {
    QueueFull,
    NoSeat,
    TimeOut,
    Cancelled,
}

impl Refusal {
    /// Upstream's word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Refusal::QueueFull => "queue-full",
            Refusal::NoSeat => "concurrency-limit",
            Refusal::TimeOut => "time-out",
            Refusal::Cancelled => "cancelled",
        }
    }
}

/// What happens to a request that arrives.
#[derive(Debug)]
pub(crate) enum Arrival {
    Runs(Seat),
    Waits(Ticket),
    Refused(Refusal),
}

/// Who waited and may start now.
pub(crate) type Started = Vec<(Ticket, Seat)>;

/// The levels with their seats and queues.
#[derive(Debug)]
pub(crate) struct Gate {
    total: u32,
    places: Vec<Place>,
    last_ticket: Ticket,
}

/// One level at work.
///
/// `used` is the sum of all seats that were given out for the level and not yet given back: a level goes only once it
/// is zero, or those seats would be given back to a namesake.
#[derive(Debug)]
struct Place {
    level: PriorityLevel,
    seats: Seats,
    used: u32,
    queues: Queues,
    /// Whether its configuration is gone: it goes too once it is empty.
    gone: bool,
}

/// What a level has at present, for the metrics.
#[derive(Debug)]
pub(crate) struct Standing<'a> {
    pub(crate) level: &'a str,
    pub(crate) seats: Seats,
    pub(crate) used: u32,
    /// How many it could have right now.
    pub(crate) current: u32,
}

impl Gate {
    /// A gate with this number of seats.
    pub(crate) fn new(total: u32, levels: &[PriorityLevel]) -> Self {
        let mut gate = Gate { total, places: Vec::new(), last_ticket: 0 };
        gate.configure(levels);
        gate
    }

    /// Goes by other levels from now on; requests that wait in one that is gone are let in all the same.
    fn configure(&mut self, levels: &[PriorityLevel]) {
        self.places.iter_mut().for_each(|place| place.gone = true);
        for (level, seats) in levels.iter().zip(deal_out(self.total, levels)) {
            let level = level.clone();
            match self.places.iter_mut().find(|place| place.level.name == level.name) {
                Some(place) => (place.level, place.seats, place.gone) = (level, seats, false),
                None => {
                    self.places.push(Place { level, seats, used: 0, queues: Queues::default(), gone: false });
                }
            }
        }
        self.places.retain(|place| !place.gone || place.used > 0 || place.queues.waiting() > 0);
    }

    /// Goes by other levels from now on.
    pub(crate) fn reconfigure(&mut self, levels: &[PriorityLevel], now: Instant) -> Started {
        self.configure(levels);
        self.let_in(now)
    }

    /// A request of a flow arrives that needs this many seats.
    pub(crate) fn arrive(&mut self, level: &str, flow: u64, seats: u32, now: Instant) -> Arrival {
        // A level that has gone in this very moment: its requests are nobody's.
        let known = self.place(level).or_else(|| self.place("catch-all"));
        let Some(at) = known else { return Arrival::Refused(Refusal::NoSeat) };
        let place = &self.places[at];
        let widest = (place.seats.nominal * WIDEST_PERCENT / 100).max(1);
        let seats = seats.clamp(1, widest);
        let queue = match place.level.queuing {
            Some(queuing) => place.queues.choose(&deal(flow, queuing.queues, queuing.hand)),
            None => 0,
        };
        // Those who wait in the same level come first, and a borrower after everybody who has a right.
        let is_free = place.level.exempt
            || place.queues.waiting() == 0
                && self.has_room(place, seats)
                && (place.is_own(seats) || !self.is_owed());
        let Place { level, queues, used, .. } = &mut self.places[at];
        if is_free {
            *used += seats;
            queues.start(queue, seats);
            return Arrival::Runs(Seat { level: level.name.clone(), queue, seats, started: now });
        }
        match level.queuing {
            None => Arrival::Refused(Refusal::NoSeat),
            Some(queuing) if queues.length(queue) >= queuing.length as usize => {
                Arrival::Refused(Refusal::QueueFull)
            }
            Some(_) => {
                self.last_ticket += 1;
                queues.push(queue, Waiting { ticket: self.last_ticket, seats });
                Arrival::Waits(self.last_ticket)
            }
        }
    }

    /// A request that ran is over.
    pub(crate) fn end(&mut self, seat: &Seat, now: Instant) -> Started {
        let Some(at) = self.place(&seat.level) else { return Started::new() };
        let place = &mut self.places[at];
        place.used -= seat.seats;
        place.queues.end(seat.queue, seat.seats, now.saturating_duration_since(seat.started));
        self.forget_if_gone(at);
        self.let_in(now)
    }

    /// A request that waited has gone; nothing if it waits no longer, because it was let in.
    pub(crate) fn give_up(&mut self, ticket: Ticket, now: Instant) -> Option<Started> {
        let at = self.places.iter_mut().position(|place| place.queues.give_up(ticket))?;
        self.forget_if_gone(at);
        Some(self.let_in(now))
    }

    fn forget_if_gone(&mut self, at: usize) {
        let place = &self.places[at];
        if place.gone && place.used == 0 && place.queues.waiting() == 0 {
            self.places.remove(at);
        }
    }

    fn place(&self, level: &str) -> Option<usize> {
        self.places.iter().position(|place| &*place.level.name == level)
    }

    /// Lets in the requests that can start: those with a right to a seat first, and of these and of the others the
    /// level that uses least of what it has.
    fn let_in(&mut self, now: Instant) -> Started {
        let mut started = Started::new();
        loop {
            let heads = self.places.iter().enumerate().filter_map(|(at, place)| {
                let (queue, seats) = place.queues.next()?;
                let share = u64::from(place.used) * 1000 / u64::from(place.seats.nominal.max(1));
                Some((!place.is_own(seats), share, at, queue, seats))
            });
            let heads: Vec<_> = heads.collect();
            let is_owed = heads.iter().any(|(borrows, ..)| !borrows);
            let able = heads.into_iter().filter(|(borrows, _, at, _, seats)| {
                !(*borrows && is_owed) && self.has_room(&self.places[*at], *seats)
            });
            let Some((_, _, at, queue, seats)) = able.min() else { return started };
            let place = &mut self.places[at];
            let Some(waiting) = place.queues.pop(queue) else { return started };
            place.used += seats;
            let seat = Seat { level: place.level.name.clone(), queue, seats, started: now };
            started.push((waiting.ticket, seat));
        }
    }

    /// Whether somebody waits who has a right to a seat.
    fn is_owed(&self) -> bool {
        self.places.iter().any(|place| place.queues.next().is_some_and(|(_, seats)| place.is_own(seats)))
    }

    /// Whether there are this many seats for a level.
    fn has_room(&self, place: &Place, seats: u32) -> bool {
        place.level.exempt
            || place.used + seats <= place.seats.lower
            || place.used + seats <= place.seats.upper && i64::from(place.needs(seats)) <= self.pool()
    }

    /// What is left in the pool; less than nothing after its seats became fewer.
    fn pool(&self) -> i64 {
        let parts = self.places.iter().map(|place| {
            let lent = if place.gone { 0 } else { place.seats.nominal - place.seats.lower };
            let taken = if place.level.exempt { 0 } else { place.used.saturating_sub(place.seats.lower) };
            i64::from(lent) - i64::from(taken)
        });
        parts.sum()
    }

    /// How all levels stand.
    pub(crate) fn standing(&self) -> impl Iterator<Item = Standing<'_>> {
        let pool = u32::try_from(self.pool()).unwrap_or_default();
        self.places.iter().map(move |place| {
            let current = (place.used.max(place.seats.lower) + pool).min(place.seats.upper);
            Standing { level: &place.level.name, seats: place.seats, used: place.used, current }
        })
    }
}

impl Place {
    /// Whether the level has a right to this many more seats.
    fn is_own(&self, seats: u32) -> bool {
        self.used + seats <= self.seats.nominal
    }

    /// How many of this many more seats come from the pool.
    fn needs(&self, seats: u32) -> u32 {
        (self.used + seats).saturating_sub(self.seats.lower) - self.used.saturating_sub(self.seats.lower)
    }
}
