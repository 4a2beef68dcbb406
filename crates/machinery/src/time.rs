//! Times as the API writes them, and ages as `kubectl` shows them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::go_time::{Fraction, parse};

/// An RFC 3339 time as `Time` of meta/v1: UTC, whole seconds.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn canonical_seconds(text: &str) -> Result<String, String> {
    let time = parse(text, Fraction::Any)?;
    Ok(time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// An RFC 3339 time with exactly six digits of the second as `MicroTime` of meta/v1: UTC.
///
/// # Errors
/// Likewise.
pub fn canonical_micros(text: &str) -> Result<String, String> {
    let time = parse(text, Fraction::Six)?;
    Ok(time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string())
}

/// How long ago `time` was at `now` (Unix seconds), such as `5s`, `3m20s`, `2d`; `<unknown>` if it is no time.
pub fn age(time: Option<&str>, now: i64) -> String {
    match time.and_then(|time| time.parse::<Timestamp>().ok()) {
        Some(time) => human_duration(now - time.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A duration for people, as `k8s.io/apimachinery/pkg/util/duration.HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    let pair = |large: i64, unit: char, small: i64, sub: char| {
        if small == 0 { format!("{large}{unit}") } else { format!("{large}{unit}{small}{sub}") }
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..=0 => "0s".to_owned(),
        1..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(canonical_seconds("2026-01-31T13:00:00.5+01:00").as_deref(), Ok("2026-01-31T12:00:00Z"));
        assert_eq!(
            canonical_micros("2026-01-31T13:00:00.500000+01:00").as_deref(),
            Ok("2026-01-31T12:00:00.500000Z")
        );
        assert!(canonical_micros("2026-01-31T12:00:00Z").is_err());
        assert!(canonical_seconds("yesterday").is_err());
    }

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        for (seconds, text) in [
            (-5, "<invalid>"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_860, "3h1m"),
            (28_800, "8h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (300_000_000, "9y"),
        ] {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
