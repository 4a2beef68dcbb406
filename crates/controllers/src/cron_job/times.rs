//! Which of its times a CronJob has missed, and which one comes next (`pkg/controller/cronjob/utils.go`).

use std::time::Duration;

use api::Schedule;
use jiff::Timestamp;
use jiff::tz::TimeZone;

/// More missed times than these are worth a warning, as upstream (`mostRecentScheduleTime`).
const MANY: i64 = 100;
/// How much later than its time a CronJob is looked at: the clocks of hosts differ a little.
const LATER: Duration = Duration::from_millis(100);

/// A schedule by the clocks of a time zone.
pub(super) struct Times<'a> {
    pub schedule: &'a Schedule,
    pub zone: &'a TimeZone,
}

/// What is due of a schedule.
#[derive(Debug, PartialEq)]
pub(super) struct Missed {
    /// The last time that has passed.
    pub last: Option<Timestamp>,
    /// About how many have.
    pub count: i64,
}

/// A schedule that names no times, or two at once.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("time difference between two schedules is less than 1 second")]
pub(super) struct Nonsense;

impl Missed {
    /// Whether more times have passed than a controller that works ever misses.
    pub fn are_many(&self) -> bool {
        self.count > MANY
    }
}

impl Times<'_> {
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, self.zone)
    }

    /// The times after `since` that have passed by now. Of many, only the last ones are looked at, by the time between the
    /// first two, as upstream does.
    pub fn missed(&self, since: Timestamp, now: Timestamp) -> Result<Missed, Nonsense> {
        let first = self.next(since).ok_or(Nonsense)?;
        let second = self.next(first).ok_or(Nonsense)?;
        if now < first {
            return Ok(Missed { last: None, count: 0 });
        }
        if now < second {
            return Ok(Missed { last: Some(first), count: 0 });
        }
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return Err(Nonsense);
        }
        let count = now.duration_since(first).as_secs() / between + 1;
        // One before the last that there would be, if all of them had this time between them.
        let early = Timestamp::from_second(first.as_second() + (count - 2) * between).unwrap_or(first);
        let times = std::iter::successors(self.next(early), |time| self.next(*time));
        Ok(Missed { last: times.take_while(|time| *time <= now).last(), count })
    }

    /// When to look again: a little after the next time.
    pub fn wait(&self, since: Timestamp, now: Timestamp) -> Option<Duration> {
        let from = match self.missed(since, now) {
            Err(Nonsense) => now,
            Ok(Missed { last: Some(last), .. }) => last,
            Ok(Missed { last: None, count: 0 }) => since,
            Ok(_) => now,
        };
        let next = self.next(from)?.checked_add(LATER).ok()?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn the_last_missed_time_is_found_however_many_there_are() {
        for (schedule, since, now, last, count) in [
            ("0 * * * *", "2026-01-01T00:30:00Z", "2026-01-01T00:59:59Z", None, 0),
            ("0 * * * *", "2026-01-01T00:30:00Z", "2026-01-01T01:10:00Z", Some("2026-01-01T01:00:00Z"), 0),
            ("0 * * * *", "2026-01-01T00:30:00Z", "2026-01-01T02:10:00Z", Some("2026-01-01T02:00:00Z"), 2),
            (
                "* * * * *",
                "2020-01-01T00:00:00Z",
                "2026-01-01T00:00:30Z",
                Some("2026-01-01T00:00:00Z"),
                3_156_480,
            ),
            ("@every 7s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", Some("2026-01-01T00:00:56Z"), 8),
            (
                "30 6-16/4 * * 1-5",
                "2026-01-02T06:30:00Z",
                "2026-01-05T12:00:00Z",
                Some("2026-01-05T10:30:00Z"),
                19,
            ),
        ] {
            let schedule = Schedule::parse(schedule).unwrap();
            let times = Times { schedule: &schedule, zone: &TimeZone::UTC };
            let missed = times.missed(at(since), at(now)).unwrap();
            assert_eq!(missed, Missed { last: last.map(at), count }, "{schedule:?} since {since}");
            assert_eq!(missed.are_many(), count > 100);
        }
    }

    #[test]
    fn a_schedule_without_times_is_nonsense() {
        let schedule = Schedule::parse("59 23 31 2 *").unwrap();
        let times = Times { schedule: &schedule, zone: &TimeZone::UTC };
        let (since, now) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
        assert_eq!((times.missed(since, now), times.wait(since, now)), (Err(Nonsense), None));
    }

    #[test]
    fn the_next_look_is_just_after_the_next_time() {
        let schedule = Schedule::parse("0 * * * *").unwrap();
        let times = Times { schedule: &schedule, zone: &TimeZone::UTC };
        let wait = |since, now| times.wait(at(since), at(now)).unwrap();
        assert_eq!(wait("2026-01-01T00:00:00Z", "2026-01-01T00:59:00Z"), Duration::from_millis(60_100));
        assert_eq!(wait("2026-01-01T00:00:00Z", "2026-01-01T02:30:00Z"), Duration::from_millis(1_800_100));
    }
}
