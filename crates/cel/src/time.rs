//! Spans of time and moments, as CEL writes them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::error::Error;
use crate::value::Value;

const SECOND: i64 = 1_000_000_000;
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

/// A span as CEL writes it: seconds, such as `5400s` or `1.5s`.
pub(crate) fn duration_text(nanos: i64) -> String {
    let (seconds, rest) = (nanos.unsigned_abs() / SECOND as u64, nanos.unsigned_abs() % SECOND as u64);
    let sign = if nanos < 0 { "-" } else { "" };
    if rest == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{rest:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// A moment in RFC 3339.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    // The parser takes more than RFC 3339 has: dates with zones in brackets, for example.
    let strict = text.len() >= 20 && text.as_bytes().get(10) == Some(&b'T') && !text.contains('[');
    strict.then(|| text.parse().ok()).flatten()
}

/// A moment and a span of time.
pub(crate) fn shifted<'a>(time: Timestamp, nanos: i64) -> Result<Value<'a>, Error> {
    let shifted = time.checked_add(jiff::SignedDuration::from_nanos(nanos));
    shifted.map(Value::Timestamp).map_err(|_| Error::Failed("timestamp overflow".into()))
}

/// The span from one moment to another.
pub(crate) fn between<'a>(later: Timestamp, earlier: Timestamp) -> Result<Value<'a>, Error> {
    let nanos = later.as_nanosecond() - earlier.as_nanosecond();
    i64::try_from(nanos).map(Value::Duration).map_err(|_| Error::Failed("duration overflow".into()))
}

/// A part of a moment, in a time zone; without one, in UTC.
pub(crate) fn part(function: &str, time: Timestamp, zone: Option<&str>) -> Result<i64, Error> {
    let zone = match zone {
        None | Some("" | "UTC") => TimeZone::UTC,
        Some(name) => zone_of(name).ok_or_else(|| Error::Failed(format!("unknown time zone {name}")))?,
    };
    let time = time.to_zoned(zone);
    Ok(match function {
        "getFullYear" => i64::from(time.year()),
        "getMonth" => i64::from(time.month()) - 1,
        "getDate" => i64::from(time.day()),
        "getDayOfMonth" => i64::from(time.day()) - 1,
        "getDayOfWeek" => i64::from(time.weekday().to_sunday_zero_offset()),
        "getDayOfYear" => i64::from(time.day_of_year()) - 1,
        "getHours" => i64::from(time.hour()),
        "getMinutes" => i64::from(time.minute()),
        "getSeconds" => i64::from(time.second()),
        _ => i64::from(time.millisecond()),
    })
}

/// A zone's name, or an offset such as `-08:00`.
fn zone_of(name: &str) -> Option<TimeZone> {
    let (sign, rest) = match name.as_bytes().first()? {
        b'-' => (-1, &name[1..]),
        b'+' => (1, &name[1..]),
        _ => (1, name),
    };
    if let Some((hours, minutes)) = rest.split_once(':')
        && let (Ok(hours), Ok(minutes)) = (hours.parse::<i32>(), minutes.parse::<i32>())
    {
        let seconds = sign * (hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?);
        return jiff::tz::Offset::from_seconds(seconds).ok().map(TimeZone::fixed);
    }
    TimeZone::get(name).ok()
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
}
