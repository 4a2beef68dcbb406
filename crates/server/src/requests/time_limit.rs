//! How long requests may take that have an end.

use std::time::Duration;

use machinery::Status;

use crate::http::query::Query;

/// How long a request may take that isn't a watch, a log or a proxied one.
///
/// Upstream's default (`--request-timeout`).
const LONGEST_REQUEST: Duration = Duration::from_secs(60);

/// 504: it took too long.
pub(super) fn timed_out() -> Status {
    Status::new(504, "Timeout", "Timeout: request did not complete within the allotted timeout")
}

/// How long a request may take that has an end: what it asks for, up to the most there is.
pub(super) fn time_of(query: &Query) -> Result<Duration, Status> {
    let Some(text) = query.get("timeout") else { return Ok(LONGEST_REQUEST) };
    let wrong = || Status::bad_request(format!("invalid timeout specified in the request URL - {text:?}"));
    Ok(duration(text).ok_or_else(wrong)?.min(LONGEST_REQUEST))
}

/// A duration as Go writes it, such as `32s`, `500ms` or `7m57s`; a number alone counts seconds. None if it is nothing.
fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0.0);
    while !rest.is_empty() {
        let is_number = |c: char| c.is_ascii_digit() || c == '.';
        let (number, behind) = rest.split_at(rest.find(|c| !is_number(c)).unwrap_or(rest.len()));
        let (unit, behind) = behind.split_at(behind.find(is_number).unwrap_or(behind.len()));
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "" if number.len() == text.len() => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = behind;
    }
    Duration::try_from_secs_f64(sum).ok().filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("32s", Some(32_000)),
            ("7m57s", Some(477_000)),
            ("1h2m3.5s", Some(3_723_500)),
            ("500ms", Some(500)),
            ("10", Some(10_000)),
            ("1.5h", Some(5_400_000)),
            ("", None),
            ("0s", None),
            ("-1s", None),
            ("5m3", None),
            ("s", None),
            ("1d", None),
            ("1..2s", None),
            ("1e400s", None),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), millis, "{text:?}");
        }
    }
}
