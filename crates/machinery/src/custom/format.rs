//! `format` of texts, as far as upstream checks it (`k8s.io/kube-openapi/pkg/validation/strfmt`).

use std::net::{Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::cidr::network_of;
use crate::name::{label_fault, subdomain_fault};

/// Whether upstream checks a format of values of that type, `""` being any (`supportedVersionedFormats`).
pub fn is_known(kind: &str, format: &str) -> bool {
    const OF_TEXTS: [&str; 26] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
        "k8slongname",
    ];
    match kind {
        "" | "string" => OF_TEXTS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a text has a format; any text has one that isn't known.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format {
        "date-time" | "datetime" => is_date_time(text),
        "date" => is_date(text),
        "duration" => is_duration(text),
        "byte" => STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => network_of(text).is_some(),
        "mac" => is_mac(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some(b'3')),
        "uuid4" => is_uuid(text, Some(b'4')),
        "uuid5" => is_uuid(text, Some(b'5')),
        "hostname" => is_hostname(text),
        "email" => is_email(text),
        "uri" => is_uri(text),
        "hexcolor" => {
            text.strip_prefix('#').unwrap_or(text).bytes().all(|b| b.is_ascii_hexdigit())
                && matches!(text.strip_prefix('#').unwrap_or(text).len(), 3 | 6)
        }
        "k8s-short-name" => label_fault(text).is_none(),
        "k8s-long-name" => subdomain_fault(text).is_none(),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        _ => true,
    }
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// A date, `T`, a time with seconds, and a zone (go-openapi's `IsDateTime`, which takes any character before a fraction).
fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let number = |text: &str, most: u32| {
        text.len() == 2 && text.parse().is_ok_and(|n: u32| n <= most && !text.starts_with('+'))
    };
    let (Some(hour), Some(minute), Some(second)) = (time.get(..2), time.get(3..5), time.get(6..8)) else {
        return false;
    };
    let colons = [2, 5].iter().all(|at| time.as_bytes()[*at] == b':');
    let zone = &time[8..];
    let fraction = zone.char_indices().nth(1).map_or(0, |(first, _)| {
        let digits = zone[first..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || zone.starts_with(['Z', 'z', '+', '-']) { 0 } else { first + digits }
    });
    let zone = &zone[fraction..];
    let is_offset = |zone: &str| {
        let parts = zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':'));
        parts.is_some_and(|(hours, minutes)| number(hours, 99) && number(minutes, 99))
    };
    is_date(date)
        && colons
        && number(hour, 23)
        && number(minute, 59)
        && number(second, 59)
        && (zone.eq_ignore_ascii_case("z") || is_offset(zone))
}

/// Go's durations, such as `1h30m` or `-1.5s`, and those of one number and a word, such as `2 days`.
fn is_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let signless = text.strip_prefix(['+', '-']).unwrap_or(text);
    if signless == "0" {
        return true;
    }
    let mut rest = signless;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        if rest[..digits].parse::<f64>().is_err() {
            return is_worded(text);
        }
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if !UNITS.contains(&&rest[..unit]) {
            return is_worded(text);
        }
        rest = &rest[unit..];
        parts += 1;
    }
    parts > 0
}

fn is_worded(text: &str) -> bool {
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let word = text[at..].trim().to_lowercase();
    let word = word.strip_suffix('s').unwrap_or(&word);
    const WORDS: [&str; 13] = [
        "nanosecond",
        "microsecond",
        "millisecond",
        "milli",
        "micro",
        "nano",
        "sec",
        "second",
        "min",
        "minute",
        "hour",
        "day",
        "week",
    ];
    at > 0 && (WORDS.contains(&word) || matches!(word, "hr" | "d" | "w" | "wk"))
}

fn is_mac(text: &str) -> bool {
    let bytes: Vec<&str> = text.split([':', '-']).collect();
    matches!(bytes.len(), 6 | 8 | 20)
        && bytes.iter().all(|part| part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let hex: Vec<u8> = text.bytes().filter(|b| *b != b'-').collect();
    let lengths: Vec<usize> = text.split('-').map(str::len).collect();
    hex.len() == 32
        && hex.iter().all(u8::is_ascii_hexdigit)
        && (lengths == [32] || lengths == [8, 4, 4, 4, 12])
        && version.is_none_or(|version| hex[12] == version)
}

fn is_hostname(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    !name.is_empty()
        && name.len() <= 255
        && name.split('.').all(|label| {
            let bytes = label.as_bytes();
            !bytes.is_empty()
                && bytes.len() <= 63
                && bytes[0] != b'-'
                && bytes[bytes.len() - 1] != b'-'
                && label.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        })
}

fn is_email(text: &str) -> bool {
    let address = match (text.find('<'), text.strip_suffix('>')) {
        (Some(at), Some(rest)) => &rest[at + 1..],
        _ => text,
    };
    address.rsplit_once('@').is_some_and(|(user, host)| {
        !user.is_empty() && !user.contains([' ', '<', '>', ',', '@']) && is_hostname(host)
    })
}

/// An absolute URI or an absolute path.
fn is_uri(text: &str) -> bool {
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return false;
    }
    text.starts_with('/')
        || text.split_once(':').is_some_and(|(scheme, rest)| {
            !rest.is_empty()
                && scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b))
        })
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn formats_are_told_apart() {
        for (format, yes, no) in [
            ("date-time", "2026-01-31T12:00:00Z", "2026-01-31"),
            ("date-time", "2026-01-31t12:00:00.25z", "2026-01-31 12:00:00Z"),
            ("date-time", "2026-01-31T12:00:00+01:00", "2026-01-31T12:00Z"),
            ("date-time", "2026-01-31T12:00:00.123456-09:30", "2026-01-31T24:00:00Z"),
            ("date-time", "2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00"),
            ("k8s-short-name", "a-1", "a.b"),
            ("k8s-long-name", "a-1.b", "A"),
            ("date", "2026-01-31", "2026-02-31"),
            ("duration", "1h30m", "soon"),
            ("duration", "2 days", "1x"),
            ("byte", "aGk=", "a"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "7f0c2b1e-0000-4000-8000-000000000000", "7f0c"),
            ("uuid4", "7f0c2b1e-0000-4000-8000-000000000000", "7f0c2b1e-0000-5000-8000-000000000000"),
            ("hostname", "a.example.com", "-a.b"),
            ("email", "a@example.com", "a"),
            ("uri", "https://example.com/a", "example"),
        ] {
            assert!(fits(format, yes), "{format} {yes}");
            assert!(!fits(format, no), "{format} {no}");
        }
        assert!(fits("whatever", "x"));
    }
}
