//! Spans of time and moments, as CEL writes them.

use std::cmp::Ordering;
use std::fmt;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::Error;
use crate::value::Value;

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400;
/// The moments that there are: from the year 1 to the end of the year 9999, in seconds (cel-go's `types/timestamp.go`).
const MOMENTS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// A moment, and how far from UTC it was written: it is written so again, but that makes no other difference.
///
/// Not a moment of `jiff`, which ends a day before the last that CEL has.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Since 1970, in UTC.
    seconds: i64,
    nanos: u32,
    /// In seconds, to the east.
    offset: i32,
}

impl Moment {
    /// The moment this many seconds after 1970; nothing outside the years 1 to 9999.
    pub(crate) fn from_seconds(seconds: i64) -> Option<Self> {
        MOMENTS.contains(&seconds).then_some(Moment { seconds, nanos: 0, offset: 0 })
    }

    /// Since 1970, cut.
    pub(crate) fn seconds(&self) -> i64 {
        self.seconds
    }

    fn as_nanos(&self) -> i128 {
        i128::from(self.seconds) * i128::from(SECOND) + i128::from(self.nanos)
    }

    fn civil(&self, offset: i32) -> Civil {
        Civil::of(self.seconds + i64::from(offset))
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.as_nanos() == other.as_nanos()
    }
}

impl Eq for Moment {}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_nanos().cmp(&other.as_nanos())
    }
}

impl From<Timestamp> for Moment {
    fn from(at: Timestamp) -> Self {
        let nanos = at.as_nanosecond();
        let seconds = nanos.div_euclid(i128::from(SECOND)) as i64;
        Moment { seconds, nanos: nanos.rem_euclid(i128::from(SECOND)) as u32, offset: 0 }
    }
}

impl fmt::Display for Moment {
    /// RFC 3339, with as many digits of a second as there are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.civil(self.offset);
        write!(f, "{:04}-{:02}-{:02}T", at.year, at.month, at.day)?;
        write!(f, "{:02}:{:02}:{:02}", at.second / 3600, at.second / 60 % 60, at.second % 60)?;
        if self.nanos > 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        if self.offset == 0 {
            return f.write_str("Z");
        }
        let (sign, minutes) = (if self.offset < 0 { '-' } else { '+' }, self.offset.abs() / 60);
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

/// A date and the second of its day, in the Gregorian calendar without an end.
struct Civil {
    /// Since 1970.
    days: i64,
    year: i64,
    month: i64,
    day: i64,
    second: i64,
}

impl Civil {
    /// After Howard Hinnant's `civil_from_days`: years begin in March, so that the day that may be missing is the last.
    fn of(seconds: i64) -> Self {
        let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
        let since = days + 719_468;
        let (era, day) = (since.div_euclid(146_097), since.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
        Civil { days, year: year + era * 400 + i64::from(month <= 2), month, day, second }
    }

    /// The day since 1970 of a date.
    fn days_of(year: i64, month: i64, day: i64) -> i64 {
        let year = year - i64::from(month <= 2);
        let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
    }
}

/// A span such as `1h30m` or `1.5s`, in nanoseconds.
pub(crate) fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, behind) = rest.split_at(end);
        let end = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        let (unit, behind) = behind.split_at(end);
        let factor = i128::from(UNITS.iter().find(|(name, _)| *name == unit)?.1);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || number.len() > 30 || fraction.contains('.') {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(factor)?)?;
        let digits = &fraction[..fraction.len().min(15)];
        if !digits.is_empty() {
            let parts: i128 = digits.parse().ok()?;
            total += parts * factor / 10i128.pow(digits.len() as u32);
        }
        rest = behind;
    }
    (!text.trim_start_matches(['-', '+']).is_empty()).then_some(())?;
    i64::try_from(if negative { -total } else { total }).ok()
}

/// A span as CEL writes it: seconds, such as `5400s` or `1.5s`, as exact as a double is.
pub(crate) fn duration_text(nanos: i64) -> String {
    let seconds = (nanos / SECOND) as f64 + (nanos % SECOND) as f64 / SECOND as f64;
    format!("{seconds}s")
}

/// A moment in RFC 3339: `2026-01-02T03:04:05.6+07:00`.
pub(crate) fn parse_timestamp(text: &str) -> Option<Moment> {
    let number = |from: usize, to: usize| {
        let digits = text.get(from..to)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if signs.iter().any(|(at, sign)| text.as_bytes().get(*at) != Some(sign)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let days = Civil::days_of(year, month, day);
    let found = Civil::of(days * DAY);
    if (found.month, found.day) != (month, day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix(['.', ',']) {
        let end = fraction.find(|c: char| !c.is_ascii_digit()).unwrap_or(fraction.len());
        let digits = &fraction[..end.min(9)];
        nanos = digits.parse::<u32>().ok()? * 10u32.pow(9 - digits.len() as u32);
        rest = &fraction[end..];
    }
    let offset = if rest == "Z" { 0 } else { offset_of(rest)? };
    let seconds = days * DAY + hour * 3600 + minute * 60 + second - i64::from(offset);
    MOMENTS.contains(&seconds).then_some(Moment { seconds, nanos, offset })
}

/// A moment of an object's field: RFC 3339, or what else fields of that format may say.
pub(crate) fn parse_any(text: &str) -> Option<Moment> {
    parse_timestamp(text).or_else(|| text.parse::<Timestamp>().ok().map(Moment::from))
}

/// `+07:00`, in seconds.
fn offset_of(text: &str) -> Option<i32> {
    let sign = match text.as_bytes().first()? {
        b'-' => -1,
        b'+' => 1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let two = |digits: &str| {
        let fits = digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit());
        fits.then(|| digits.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// A moment and a span of time.
pub(crate) fn shifted<'a>(time: Moment, nanos: i64) -> Result<Value<'a>, Error> {
    let at = time.as_nanos() + i128::from(nanos);
    let seconds = at.div_euclid(i128::from(SECOND)) as i64;
    if !MOMENTS.contains(&seconds) {
        return Error::failed("timestamp overflow");
    }
    Ok(Value::Timestamp(Moment { seconds, nanos: at.rem_euclid(i128::from(SECOND)) as u32, ..time }))
}

/// The span from one moment to another.
pub(crate) fn between<'a>(later: Moment, earlier: Moment) -> Result<Value<'a>, Error> {
    let nanos = later.as_nanos() - earlier.as_nanos();
    i64::try_from(nanos).map(Value::Duration).map_err(|_| Error::Failed("integer overflow".into()))
}

/// A part of a moment, in a time zone; without one, in UTC.
pub(crate) fn part(function: &str, time: Moment, zone: Option<&str>) -> Result<i64, Error> {
    let offset = match zone {
        None | Some("" | "UTC") => 0,
        Some(name) => {
            zone_of(name, time).ok_or_else(|| Error::Failed(format!("unknown time zone {name}")))?
        }
    };
    let at = time.civil(offset);
    Ok(match function {
        "getFullYear" => at.year,
        "getMonth" => at.month - 1,
        "getDate" => at.day,
        "getDayOfMonth" => at.day - 1,
        // The first day of 1970 was a Thursday.
        "getDayOfWeek" => (at.days + 4).rem_euclid(7),
        "getDayOfYear" => at.days - Civil::days_of(at.year, 1, 1),
        "getHours" => at.second / 3600,
        "getMinutes" => at.second / 60 % 60,
        "getSeconds" => at.second % 60,
        _ => i64::from(time.nanos / 1_000_000),
    })
}

/// How far a zone is from UTC at a moment, by its name or an offset such as `-08:00`, in seconds.
fn zone_of(name: &str, time: Moment) -> Option<i32> {
    if let Some((hours, minutes)) = name.split_once(':') {
        let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
        let minutes = if name.starts_with('-') { minutes.checked_neg()? } else { minutes };
        return hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?);
    }
    // Past the end of what the zone knows, its last rule goes on.
    let at = time.seconds.clamp(Timestamp::MIN.as_second(), Timestamp::MAX.as_second());
    let at = Timestamp::from_second(at).ok()?;
    Some(TimeZone::get(name).ok()?.to_offset(at).seconds())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_of_time_are_read_and_written() {
        for (text, nanos, written) in [
            ("1h30m", 5_400 * SECOND, "5400s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("-2ms", -2_000_000, "-0.002s"),
            ("0", 0, "0s"),
        ] {
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
            assert_eq!(duration_text(nanos), written);
        }
        for text in ["", "-", "1", "h", "1x", "1..5s", "99999999999h"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn moments_are_read_and_written_as_they_were() {
        for text in [
            "2026-01-02T03:04:05Z",
            "2024-02-29T12:34:56.789+02:00",
            "0001-01-01T00:00:00Z",
            "9999-12-31T23:59:59.999999999Z",
            "1969-12-31T23:59:59.5-08:30",
        ] {
            assert_eq!(parse_timestamp(text).unwrap().to_string(), text);
        }
        for text in [
            "2026-02-30T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01",
            "2026-01-01T00:00:60Z",
            "2026-01-01t00:00:00Z",
            "2026-01-01T00:00:00",
            "2026-01-01T00:00:00+1:00",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59-01:00",
        ] {
            assert!(parse_timestamp(text).is_none(), "{text}");
        }
        let last = parse_timestamp("9999-12-31T23:59:59Z").unwrap();
        assert!(shifted(last, SECOND).is_err());
        assert_eq!(part("getFullYear", last, Some("+05:30")), Ok(10_000));
        assert_eq!(parse_timestamp("2026-01-01T00:00:00+02:00"), parse_timestamp("2025-12-31T22:00:00Z"));
    }

    #[test]
    fn calendars_agree() {
        for days in (-719_162..2_932_896).step_by(97) {
            let ours = Civil::of(days * DAY);
            let theirs = jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().days(days)).unwrap();
            let theirs = (i64::from(theirs.year()), i64::from(theirs.month()), i64::from(theirs.day()));
            assert_eq!((ours.year, ours.month, ours.day), theirs);
            assert_eq!(Civil::days_of(ours.year, ours.month, ours.day), days);
        }
    }
}
