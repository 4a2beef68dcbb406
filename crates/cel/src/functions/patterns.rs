//! Regular expressions. They are compiled once and kept, and take time as the text is long.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use regex::{Regex, RegexBuilder};

use super::Answer;
use crate::budget::Budget;
use crate::error::Error;
use crate::value::Value;

/// The largest compiled pattern, in bytes: all that are kept take 64 MiB at most.
const LARGEST: usize = 1 << 18;
/// The most patterns that are kept.
const MOST: usize = 256;
/// What compiling one costs, besides its length: it takes far longer than a step, and an expression that makes patterns
/// itself may make a thousand at most.
const COMPILING: u64 = 1000;

/// Whether the text is a regular expression.
pub(crate) fn is_pattern(pattern: &str) -> Result<(), String> {
    build(pattern).map(|_| ())
}

fn build(pattern: &str) -> Result<Regex, String> {
    // The error shows the pattern over several lines; the last says what is wrong.
    let why = |error: regex::Error| {
        error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    let pattern = translated(pattern)?;
    RegexBuilder::new(&pattern).size_limit(LARGEST).nest_limit(100).build().map_err(why)
}

/// The most repetitions: RE2's `kMaxRepeat`.
const MOST_REPEATS: u32 = 1000;

/// A pattern of RE2, as Go reads it, in the words of the crate `regex`: there classes of Perl and the edges of words are
/// those of Unicode, a bracket in a class begins another, a brace is always a repetition, and some escapes mean other things.
fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut in_class = false;
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let behind = &rest[c.len_utf8()..];
        rest = behind;
        match c {
            '\\' => {
                let Some(escaped) = behind.chars().next() else {
                    return Err(
                        "error parsing regexp: trailing backslash at end of expression: ``".to_owned()
                    );
                };
                rest = &behind[escaped.len_utf8()..];
                if escaped == 'Q' && !in_class {
                    let (literal, behind) = rest.split_once("\\E").unwrap_or((rest, ""));
                    out.push_str(&regex::escape(literal));
                    rest = behind;
                } else {
                    escape(escaped, in_class, &mut out)?;
                }
            }
            '[' if in_class => match behind.strip_prefix(':').and_then(|name| name.find(":]")) {
                Some(end) => {
                    out.push_str(&format!("[{}", &behind[..end + 3]));
                    rest = &behind[end + 3..];
                }
                None => out.push_str("\\["),
            },
            '&' | '~' if in_class => out.extend(['\\', c]),
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '[' => {
                in_class = true;
                out.push(c);
                let negated = behind.strip_prefix('^');
                out.push_str(if negated.is_some() { "^" } else { "" });
                rest = negated.unwrap_or(behind);
                // Directly behind the bracket it is one of the class.
                if let Some(behind) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = behind;
                }
            }
            '{' if !in_class => match repetition(behind) {
                None => out.push_str("\\{"),
                Some(most) if most > MOST_REPEATS => {
                    return Err("error parsing regexp: invalid repeat count".to_owned());
                }
                Some(_) => out.push('{'),
            },
            '(' if !in_class && behind.starts_with('?') => {
                let flags = behind[1..].find(|c: char| !c.is_ascii_alphabetic() && c != '-').unwrap_or(0);
                let flags = &behind[1..1 + flags];
                let named = flags == "P" || behind[1..].starts_with('<');
                if !named && !flags.chars().all(|flag| "imsU-".contains(flag)) {
                    return Err("error parsing regexp: invalid or unsupported Perl syntax".to_owned());
                }
                out.push('(');
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(escaped: char, in_class: bool, out: &mut String) -> Result<(), String> {
    let plain = match (escaped, in_class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', _) => "[^0-9]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('<' | '>', _) => {
            out.push(escaped);
            return Ok(());
        }
        ('b' | 'B' | 'C' | 'G' | 'Z' | 'u' | 'U' | 'E' | 'R' | 'X' | 'K' | 'h' | 'H' | 'N', _) => {
            return Err(format!("error parsing regexp: invalid escape sequence: `\\{escaped}`"));
        }
        _ => {
            out.extend(['\\', escaped]);
            return Ok(());
        }
    };
    out.push_str(plain);
    Ok(())
}

/// The largest number of a repetition such as `{2,5}`, behind its brace; nothing if it is none, and only text.
fn repetition(text: &str) -> Option<u32> {
    let (counts, _) = text.split_once('}')?;
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().unwrap_or(u32::MAX));
    let least = number(least).filter(|_| !least.is_empty())?;
    if most.is_empty() { Some(least) } else { number(most).map(|most| most.max(least)) }
}

fn compiled(pattern: &str, budget: &mut Budget) -> Result<Regex, Error> {
    static KEPT: OnceLock<Mutex<HashMap<String, Regex>>> = OnceLock::new();
    let kept = KEPT.get_or_init(Mutex::default);
    if let Some(found) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return Ok(found.clone());
    }
    budget.charge(COMPILING + pattern.len() as u64 * 10)?;
    let regex = build(pattern).map_err(Error::Failed)?;
    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() >= MOST {
        kept.clear();
    }
    kept.insert(pattern.to_owned(), regex.clone());
    Ok(regex)
}

fn prepare(text: &str, pattern: &str, budget: &mut Budget) -> Result<Regex, Error> {
    let steps = (text.len() as u64 / 10 + 1).saturating_mul(pattern.len() as u64 / 4 + 1);
    budget.charge(steps)?;
    compiled(pattern, budget)
}

pub(super) fn matches<'a>(text: &str, pattern: &str, budget: &mut Budget) -> Answer<'a> {
    Ok(Value::Bool(prepare(text, pattern, budget)?.is_match(text)))
}

pub(super) fn find<'a>(text: &str, pattern: &str, budget: &mut Budget) -> Answer<'a> {
    let found = prepare(text, pattern, budget)?.find(text).map(|found| found.as_str());
    Ok(found.unwrap_or_default().into())
}

pub(super) fn find_all<'a>(text: &str, pattern: &str, most: i64, budget: &mut Budget) -> Answer<'a> {
    let regex = prepare(text, pattern, budget)?;
    let mut list = Vec::new();
    for found in regex.find_iter(text).take(usize::try_from(most).unwrap_or(usize::MAX)) {
        // Each search may look at the whole text again.
        budget.charge(1)?;
        list.push(found.as_str().into());
    }
    Ok(Value::list(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_re2() {
        for (pattern, fits, other) in [
            (r"^\d+$", "12", "\u{661}\u{662}"),
            (r"^\w+$", "a_1", "\u{e9}"),
            (r"^[\w.-]+$", "a.b-c", "\u{e9}"),
            (r"^[^\s]+$", "a\u{a0}b", "a b"),
            (r"^\bab\b", "ab\u{e9}", "abc"),
            ("^[[]$", "[", "]"),
            ("^[]a]$", "]", "["),
            ("^[a&&b]+$", "a&b", "c"),
            ("^[[:alpha:]]+$", "ab", "1"),
            ("^{a}$", "{a}", "a"),
            ("^a{2,3}$", "aa", "a"),
            (r"^\Qa.b\E+$", "a.bb", "axb"),
            (r"^\<a\>$", "<a>", "a"),
            ("(?i)^ABC$", "abc", "abd"),
            ("^(?P<x>a)(?:b)$", "ab", "a"),
        ] {
            let regex = build(pattern).unwrap();
            assert!(regex.is_match(fits) && !regex.is_match(other), "{pattern}");
        }
        for pattern in ["(", "[", "a{1001}", r"\u{61}", "(?x)a", "(?=a)", "\\", "*"] {
            assert!(build(pattern).is_err(), "{pattern}");
        }
    }
}
