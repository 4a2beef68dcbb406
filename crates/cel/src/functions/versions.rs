//! Versions: those of Semantic Versioning 2.0.0.

use semver::Version;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::value::Value;

/// `semver` and `isSemver`; a loose one may have a `v` in front, leading zeros and fewer numbers.
pub(super) fn parse<'a>(function: &str, text: &str, loose: bool) -> Answer<'a> {
    let parsed = if loose { normalized(text) } else { Some(text.to_owned()) };
    let parsed = parsed.and_then(|text| Version::parse(&text).ok());
    match (function, parsed) {
        ("isSemver", parsed) => Ok(Value::Bool(parsed.is_some())),
        (_, Some(version)) => Ok(Value::Semver(version.into())),
        (_, None) => Error::failed(format!("{text:?} is no semantic version")),
    }
}

/// As upstream's `normalizeAndParse`: a short version has nothing behind its numbers.
fn normalized(text: &str) -> Option<String> {
    let mut parts: Vec<String> =
        text.strip_prefix('v').unwrap_or(text).splitn(3, '.').map(without_zeros).collect();
    if parts.len() < 3 && parts.last()?.contains(['+', '-']) {
        return None;
    }
    parts.resize(3, "0".to_owned());
    Some(parts.join("."))
}

/// Leading zeros are dropped; where no digit is left, there is one.
fn without_zeros(part: &str) -> String {
    match part.trim_start_matches('0') {
        _ if part.len() < 2 => part.to_owned(),
        rest if rest.starts_with(|c: char| c.is_ascii_digit()) => rest.to_owned(),
        rest => format!("0{rest}"),
    }
}

/// A method of a version. What is behind a `+` makes no difference to any of them.
pub(super) fn method<'a>(name: &str, version: &Version, arguments: &[Value<'a>]) -> Answer<'a> {
    let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
    Ok(match (name, arguments) {
        ("major", []) => number(version.major),
        ("minor", []) => number(version.minor),
        ("patch", []) => number(version.patch),
        ("isLessThan", [Value::Semver(other)]) => Value::Bool(version.cmp_precedence(other).is_lt()),
        ("isGreaterThan", [Value::Semver(other)]) => Value::Bool(version.cmp_precedence(other).is_gt()),
        ("compareTo", [Value::Semver(other)]) => Value::Int(version.cmp_precedence(other) as i64),
        _ => return no_overload(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loose_versions_are_read_as_upstream_does() {
        for (text, expected) in [
            ("1.2.3", Some("1.2.3")),
            ("v01.002.0003-rc.1+b", Some("1.2.3-rc.1+b")),
            ("v1", Some("1.0.0")),
            ("1.02", Some("1.2.0")),
            ("0.00.000", Some("0.0.0")),
            ("1.2.00-a", Some("1.2.0-a")),
            ("1.2.-alpha", Some("1.2.0-alpha")),
            ("1.0-alpha", None),
            ("1.2.3-01", None),
            ("1.2.3.4", None),
            ("vv1", None),
            ("", None),
        ] {
            let found = normalized(text).and_then(|text| Version::parse(&text).ok());
            assert_eq!(found.map(|version| version.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_built_makes_no_order() {
        let of = |text: &str| match parse("semver", text, false) {
            Ok(Value::Semver(version)) => version,
            _ => panic!("{text} is a version"),
        };
        let equal = method("compareTo", &of("1.0.0+b"), &[Value::Semver(of("1.0.0+a"))]);
        assert!(matches!(equal, Ok(Value::Int(0))));
        let before = method("isLessThan", &of("1.0.0-alpha.9"), &[Value::Semver(of("1.0.0-alpha.10"))]);
        assert!(matches!(before, Ok(Value::Bool(true))));
        for text in ["1.2", "01.2.3", "1.2.3-01", "1.2.3-", "1.2.3+", "1.2.3-a_b", "18446744073709551616.0.0"]
        {
            assert!(parse("semver", text, false).is_err(), "{text}");
        }
    }
}
