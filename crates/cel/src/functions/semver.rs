//! Versions: semver 2.0.0.

use std::cmp::Ordering;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::value::Value;

/// A version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    prerelease: Vec<String>,
}

/// `semver` and `isSemver`; a loose one may have a `v` in front, leading zeros and fewer numbers.
pub(super) fn parse<'a>(function: &str, text: &str, loose: bool) -> Answer<'a> {
    let parsed = if loose { Semver::parse(&normalized(text)) } else { Semver::parse(text) };
    match (function, parsed) {
        ("isSemver", parsed) => Ok(Value::Bool(parsed.is_some())),
        (_, Some(version)) => Ok(Value::Semver(version.into())),
        (_, None) => Error::failed(format!("{text:?} is no semantic version")),
    }
}

fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (numbers, rest) = text.split_at(end);
    let mut numbers: Vec<&str> = numbers
        .split('.')
        .map(|number| match number.trim_start_matches('0') {
            "" if !number.is_empty() => "0",
            trimmed => trimmed,
        })
        .collect();
    while numbers.len() < 3 {
        numbers.push("0");
    }
    format!("{}{rest}", numbers.join("."))
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let (text, build) = text.split_once('+').map_or((text, None), |(text, build)| (text, Some(build)));
        let (numbers, prerelease) =
            text.split_once('-').map_or((text, None), |(text, pre)| (text, Some(pre)));
        let is_word =
            |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
        let leads_with_zero = |word: &str| word.len() > 1 && word.starts_with('0');
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return None;
        }
        let mut parsed = [0; 3];
        let mut parts = numbers.split('.');
        for slot in &mut parsed {
            let part = parts.next().filter(|part| is_number(part) && !leads_with_zero(part))?;
            *slot = part.parse().ok()?;
        }
        if parts.next().is_some() {
            return None;
        }
        let prerelease: Vec<String> =
            prerelease.into_iter().flat_map(|pre| pre.split('.')).map(str::to_owned).collect();
        let fits = |word: &String| is_word(word) && !(is_number(word) && leads_with_zero(word));
        prerelease.iter().all(fits).then_some(Semver { numbers: parsed, prerelease })
    }

    pub(crate) fn compare(&self, other: &Semver) -> Ordering {
        let by_prerelease = || match (self.prerelease.is_empty(), other.prerelease.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.prerelease.iter().zip(&other.prerelease).map(|(a, b)| compare_words(a, b));
                let first = pairs.into_iter().find(|order| order.is_ne());
                first.unwrap_or_else(|| self.prerelease.len().cmp(&other.prerelease.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then_with(by_prerelease)
    }

    pub(super) fn method<'a>(&self, name: &str, arguments: &[Value<'a>]) -> Answer<'a> {
        let number = |at: usize| Value::Int(i64::try_from(self.numbers[at]).unwrap_or(i64::MAX));
        Ok(match (name, arguments) {
            ("major", []) => number(0),
            ("minor", []) => number(1),
            ("patch", []) => number(2),
            ("isLessThan", [Value::Semver(other)]) => Value::Bool(self.compare(other).is_lt()),
            ("isGreaterThan", [Value::Semver(other)]) => Value::Bool(self.compare(other).is_gt()),
            ("compareTo", [Value::Semver(other)]) => Value::Int(self.compare(other) as i64),
            _ => return no_overload(),
        })
    }
}

/// Numbers come before words, and by size.
fn compare_words(a: &str, b: &str) -> Ordering {
    let is_number = |word: &str| word.bytes().all(|b| b.is_ascii_digit());
    match (is_number(a), is_number(b)) {
        (true, true) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(b),
    }
}
