//! Times as the API writes them, and ages as `kubectl` shows them.

use jiff::SignedDuration;
use jiff::civil::{DateTime, datetime};

use crate::go_time::{Fraction, parse};

/// A moment of the years 0 to 9999 in UTC, to the nanosecond. Days of which some zones have none are among them: the last one of
/// 9999, which certificates and leases that never end name, lies behind jiff's `Timestamp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(DateTime);

const EPOCH: DateTime = datetime(1970, 1, 1, 0, 0, 0, 0);

impl Moment {
    /// What a text in RFC 3339 says.
    pub fn parse(text: &str) -> Option<Self> {
        parse(text, Fraction::Any).ok().map(Moment)
    }

    /// So long after 1970 began.
    pub fn from_unix(seconds: i64, nanoseconds: i32) -> Option<Self> {
        let time = EPOCH.checked_add(SignedDuration::new(seconds, nanoseconds)).ok()?;
        (time.year() >= 0).then_some(Moment(time))
    }

    /// Seconds since 1970 began, rounded down, and the nanoseconds behind them.
    pub fn unix(self) -> (i64, i32) {
        let since = self.0.duration_since(EPOCH);
        let nanoseconds = self.0.subsec_nanosecond();
        let whole = since - SignedDuration::from_nanos(nanoseconds.into());
        (whole.as_secs(), nanoseconds)
    }

    /// As `Time` of meta/v1: whole seconds.
    pub fn to_seconds(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
    }

    /// As `MicroTime` of meta/v1.
    pub fn to_micros(self) -> String {
        self.0.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
    }
}

/// An RFC 3339 time as `Time` of meta/v1: UTC, whole seconds.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn canonical_seconds(text: &str) -> Result<String, String> {
    Ok(Moment(parse(text, Fraction::Any)?).to_seconds())
}

/// An RFC 3339 time with exactly six digits of the second as `MicroTime` of meta/v1: UTC.
///
/// # Errors
/// Likewise.
pub fn canonical_micros(text: &str) -> Result<String, String> {
    Ok(Moment(parse(text, Fraction::Six)?).to_micros())
}

/// How long ago `time` was at `now` (Unix seconds), such as `5s`, `3m20s`, `2d`; `<unknown>` if it is no time.
pub fn age(time: Option<&str>, now: i64) -> String {
    time.and_then(Moment::parse)
        .map_or_else(|| "<unknown>".to_owned(), |time| human_duration(now - time.unix().0))
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
        assert_eq!(canonical_seconds("9999-12-31T23:59:59Z").as_deref(), Ok("9999-12-31T23:59:59Z"));
        assert!(canonical_micros("2026-01-31T12:00:00Z").is_err());
        assert!(canonical_seconds("yesterday").is_err());
    }

    #[test]
    fn moments_are_counted_from_1970() {
        for (text, unix) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("1969-12-31T23:59:59.25Z", (-1, 250_000_000)),
            ("2026-01-31T13:00:00.5+01:00", (1_769_860_800, 500_000_000)),
            ("9999-12-31T23:59:59Z", (253_402_300_799, 0)),
            ("0001-01-01T00:00:00Z", (-62_135_596_800, 0)),
        ] {
            let moment = Moment::parse(text).unwrap();
            assert_eq!(moment.unix(), unix, "{text}");
            assert_eq!(Moment::from_unix(unix.0, unix.1), Some(moment), "{text}");
        }
        assert_eq!(Moment::from_unix(253_402_300_800, 0), None);
        assert_eq!(Moment::from_unix(i64::MAX, 0), None);
        assert_eq!(Moment::from_unix(i64::MIN, 999_999_999), None);
        assert_eq!(age(Some("9999-12-31T23:59:59Z"), 0), "<invalid>");
        assert_eq!(age(Some("soon"), 0), "<unknown>");
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
