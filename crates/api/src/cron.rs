//! Schedules of cron jobs: five fields, or a name such as `@daily`, as the standard parser of `github.com/robfig/cron/v3`
//! reads them, and the moments that they name.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned, civil};

/// A field's name, its smallest and largest value, and names for values from the smallest on.
struct Field {
    what: &'static str,
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const fn field(what: &'static str, least: u32, most: u32, names: &'static [&'static str]) -> Field {
    Field { what, least, most, names }
}

const MINUTE: Field = field("minute", 0, 59, &[]);
const HOUR: Field = field("hour", 0, 23, &[]);
const DAY: Field = field("day of month", 1, 31, &[]);
const MONTH: Field = field(
    "month",
    1,
    12,
    &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
);
const WEEKDAY: Field = field("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]);

/// Names for schedules, and what they mean.
const NAMED: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];

/// No schedule is looked for beyond these years: one that names no moment by then (31 February) names none.
const YEARS: i16 = 5;

/// The names of the time zones of the IANA's database, one a line.
const TIME_ZONES: &str = include_str!("../schemas/time-zones.txt");

/// When something is to happen again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// After this long each time, in whole seconds.
    Every(Duration),
    /// In the minutes that the calendar names.
    Calendar(Calendar),
}

/// The minutes of a calendar that a schedule of five fields names: one bit a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calendar {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Whether a day must be named by both its fields: by either one, if neither field is a star.
    both: bool,
}

impl Schedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(every) = text.strip_prefix("@every ") {
            let every = go_duration(every).ok_or_else(|| format!("no duration: {every:?}"))?;
            return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1))));
        }
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, fields)| *fields);
        if text.starts_with('@') && named.is_none() {
            return Err(format!("unknown name: {text:?}"));
        }
        let fields: Vec<&str> = named.unwrap_or(text).split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("expected exactly 5 fields, found {}", fields.len()));
        };
        let ((days, any_day), (weekdays, any_weekday)) = (DAY.parse(day)?, WEEKDAY.parse(weekday)?);
        Ok(Schedule::Calendar(Calendar {
            minutes: MINUTE.parse(minute)?.0,
            hours: HOUR.parse(hour)?.0,
            days,
            months: MONTH.parse(month)?.0,
            weekdays,
            both: any_day || any_weekday,
        }))
    }

    /// The first moment after this one that it names, by the clocks of a time zone; nothing if there is none. An hour that
    /// the clocks leave out has none, and one that they show twice has each twice.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                Timestamp::from_second(after.as_second()).ok()?.checked_add(*every).ok()
            }
            Schedule::Calendar(calendar) => calendar.next(after, zone),
        }
    }
}

impl Calendar {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        // The next full minute: clocks of all zones show full minutes at the same moments.
        let mut at = Timestamp::from_second(after.as_second().div_euclid(60) * 60 + 60).ok()?;
        let last = after.to_zoned(zone.clone()).year() + YEARS;
        let mut date = at.to_zoned(zone.clone()).date();
        while date.year() <= last {
            let tomorrow = date.tomorrow().ok()?;
            if self.names_day(date) {
                let midnight = |date: civil::Date| Some(date.to_zoned(zone.clone()).ok()?.timestamp());
                at = at.max(midnight(date)?);
                let end = midnight(tomorrow)?;
                while at < end {
                    let now = at.to_zoned(zone.clone());
                    if self.names_time(&now) {
                        return Some(at);
                    }
                    at = at.checked_add(Duration::from_secs(60 * self.minutes_to_skip(&now))).ok()?;
                }
            }
            date = tomorrow;
        }
        None
    }

    fn names_day(&self, date: civil::Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        has(self.months, date.month()) && if self.both { day && weekday } else { day || weekday }
    }

    fn names_time(&self, now: &Zoned) -> bool {
        has(self.hours, now.hour()) && has(self.minutes, now.minute())
    }

    /// How many minutes to go on by: to the end of an hour that is not named, if the clocks are not set meanwhile.
    fn minutes_to_skip(&self, now: &Zoned) -> u64 {
        let left = 60 - u64::try_from(now.minute()).unwrap_or(0);
        let then = now.timestamp().checked_add(Duration::from_secs(60 * left));
        let is_even = then.is_ok_and(|then| now.time_zone().to_offset(then) == now.offset());
        if has(self.hours, now.hour()) || !is_even { 1 } else { left }
    }
}

fn has(bits: u64, value: i8) -> bool {
    u32::try_from(value).is_ok_and(|value| bits >> value & 1 == 1)
}

impl Field {
    /// The values that a text names, one bit each, and whether one of its parts is a star.
    fn parse(&self, text: &str) -> Result<(u64, bool), String> {
        let (mut bits, mut star) = (0, false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (more, is_star) = self.parse_range(part)?;
            bits |= more;
            star |= is_star;
        }
        Ok((bits, star))
    }

    /// `*`, `?`, `5`, `1-5`, `*/15`, `1-30/2`, `mon-fri`, and `5/15` for from five on.
    fn parse_range(&self, text: &str) -> Result<(u64, bool), String> {
        let what = self.what;
        let wrong = |why: &str| format!("{what}: {why}: {text:?}");
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => {
                let step = number(step).filter(|step| *step > 0);
                (range, step.ok_or_else(|| wrong("the step must be a positive number"))?)
            }
            None => (text, 1),
        };
        let (first, last) = range.split_once('-').map_or((range, None), |(first, last)| (first, Some(last)));
        let is_star = matches!(first, "*" | "?");
        let (first, last) = if is_star {
            (self.least, self.most)
        } else {
            let value = |text: &str| self.value(text).ok_or_else(|| wrong("not a number"));
            let first = value(first)?;
            match last {
                Some(last) => (first, value(last)?),
                // A single number with a step runs to the end.
                None => (first, if text.contains('/') { self.most } else { first }),
            }
        };
        if first < self.least || last > self.most {
            return Err(wrong(&format!("must lie between {} and {}", self.least, self.most)));
        }
        if first > last {
            return Err(wrong("begins beyond its end"));
        }
        let step_by = usize::try_from(step).unwrap_or(usize::MAX);
        let bits = (first..=last).step_by(step_by).fold(0, |bits, value| bits | 1 << value);
        Ok((bits, is_star && step == 1))
    }

    fn value(&self, text: &str) -> Option<u32> {
        let name = self.names.iter().position(|name| name.eq_ignore_ascii_case(text));
        name.and_then(|at| u32::try_from(at).ok()).map(|at| at + self.least).or_else(|| number(text))
    }
}

/// A number as Go's `Atoi` reads it, if it is not negative.
fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// A duration in Go's form: `1h30m`, `1.5s`; nothing if it is none, and zero if it is negative.
fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(digits);
        let units = [
            ("ns", 1e-9),
            ("us", 1e-6),
            ("µs", 1e-6),
            ("μs", 1e-6),
            ("ms", 1e-3),
            ("s", 1.0),
            ("m", 60.0),
            ("h", 3600.0),
        ];
        let unit = units.iter().filter(|(unit, _)| tail.starts_with(unit)).max_by_key(|(unit, _)| unit.len());
        let (unit, seconds) = unit?;
        let is_number = digits.matches('.').count() <= 1 && digits.bytes().any(|byte| byte.is_ascii_digit());
        sum += is_number.then(|| digits.parse::<f64>().ok()).flatten()? * seconds;
        rest = &tail[unit.len()..];
    }
    // As many nanoseconds as 63 bits hold.
    (sum < 9_223_372_036.0).then_some(())?;
    Some(if text.starts_with('-') { Duration::ZERO } else { Duration::from_secs_f64(sum) })
}

/// Whether there is a time zone of that name.
pub(crate) fn is_time_zone(name: &str) -> bool {
    TIME_ZONES.lines().any(|line| line == name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(schedule: &str, after: &str, zone: &TimeZone) -> Option<String> {
        let next = Schedule::parse(schedule).unwrap().next(after.parse().unwrap(), zone)?;
        Some(next.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string())
    }

    #[test]
    fn schedules_are_told_from_what_is_none() {
        for good in [
            "*/5 * * * *",
            "0 0 1 JAN mon-fri",
            "5/15 1-3 ? * 0,6",
            "@daily",
            "@every 1h30m",
            "1,2 * * * *",
            "1,,2 * * * *",
            "+1 * * * *",
            "59 23 31 2 *",
        ] {
            assert!(Schedule::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "every day",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "* * * * 7",
            "5-1 * * * *",
            "1-2-3 * * * *",
            "1/2/3 * * * *",
            "*/0 * * * *",
            "@often",
            "@every x",
            "@every 1",
            "-1 * * * *",
        ] {
            assert!(Schedule::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_next_moment_is_the_first_that_the_calendar_names() {
        let utc = TimeZone::UTC;
        for (schedule, after, expected) in [
            ("* * * * *", "2026-03-01T10:00:00Z", Some("2026-03-01T10:01:00+00:00")),
            ("* * * * *", "2026-03-01T10:00:59.5Z", Some("2026-03-01T10:01:00+00:00")),
            ("*/15 * * * *", "2026-03-01T10:00:00Z", Some("2026-03-01T10:15:00+00:00")),
            ("20/15 * * * *", "2026-03-01T10:51:00Z", Some("2026-03-01T11:20:00+00:00")),
            ("30 6-16/4 * * 1-5", "2026-02-27T14:30:00Z", Some("2026-03-02T06:30:00+00:00")),
            ("@monthly", "2026-12-01T00:00:00Z", Some("2027-01-01T00:00:00+00:00")),
            ("@weekly", "2026-03-01T00:00:00Z", Some("2026-03-08T00:00:00+00:00")),
            ("@hourly", "2026-03-01T23:00:00Z", Some("2026-03-02T00:00:00+00:00")),
            ("@every 90s", "2026-03-01T10:00:00.7Z", Some("2026-03-01T10:01:30+00:00")),
            ("@every 1ms", "2026-03-01T10:00:00Z", Some("2026-03-01T10:00:01+00:00")),
            // Both of a day's fields name it if one of them is a star, else either one does.
            ("0 0 13 * *", "2026-03-01T00:00:00Z", Some("2026-03-13T00:00:00+00:00")),
            ("0 0 20 * fri", "2026-03-01T00:00:00Z", Some("2026-03-06T00:00:00+00:00")),
            ("0 0 2-31/2 * fri", "2026-03-01T00:00:00Z", Some("2026-03-02T00:00:00+00:00")),
            ("0 0 29 2 *", "2026-03-01T00:00:00Z", Some("2028-02-29T00:00:00+00:00")),
            ("59 23 31 2 *", "2026-03-01T00:00:00Z", None),
        ] {
            assert_eq!(next(schedule, after, &utc).as_deref(), expected, "{schedule} after {after}");
        }
    }

    #[test]
    fn clocks_that_are_set_leave_out_an_hour_or_show_it_twice() {
        // Like in Central Europe: on 29 March 2026 from 2 to 3, on 25 October from 3 to 2.
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        for (schedule, after, expected) in [
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-30T02:30:00+02:00"),
            ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T02:30:00+02:00"),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T02:30:00+01:00"),
            ("30 2 * * *", "2026-10-25T01:30:00Z", "2026-10-26T02:30:00+01:00"),
            ("0 9 * * *", "2026-03-28T12:00:00Z", "2026-03-29T09:00:00+02:00"),
            ("@hourly", "2026-03-29T00:00:00Z", "2026-03-29T03:00:00+02:00"),
        ] {
            assert_eq!(next(schedule, after, &zone).as_deref(), Some(expected), "{schedule} after {after}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_named_is_passed_over(
            minute in 0_u32..60, hours in prop::collection::btree_set(0_u32..24, 1..4), weekday in 0_u32..7,
            after in 1_700_000_000_i64..1_800_000_000,
        ) {
            let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
            let list = hours.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
            let schedule = Schedule::parse(&format!("{minute} {list} * * {weekday}")).unwrap();
            let after = Timestamp::from_second(after).unwrap();
            let next = schedule.next(after, &zone).unwrap();
            let is_named = |at: Timestamp| {
                let now = at.to_zoned(zone.clone());
                now.second() == 0
                    && u32::try_from(now.minute()) == Ok(minute)
                    && hours.iter().any(|hour| u32::try_from(now.hour()) == Ok(*hour))
                    && u32::try_from(now.weekday().to_sunday_zero_offset()) == Ok(weekday)
            };
            prop_assert!(next > after && is_named(next));
            let between = (after.as_second() / 60 + 1)..(next.as_second() / 60);
            prop_assert!(!between.into_iter().any(|minute| is_named(Timestamp::from_second(minute * 60).unwrap())));
        }
    }

    #[test]
    fn time_zones_are_known_by_name() {
        assert!(is_time_zone("Europe/Zurich") && is_time_zone("Etc/UTC") && !is_time_zone("Mars/Olympus"));
    }
}
