//! Named formats, such as that of a DNS label.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Answer;
use super::url::Url;
use crate::budget::Budget;
use crate::names;
use crate::time;
use crate::value::Value;

/// A format with a name, and what is wrong with a text that doesn't have it.
pub struct Format {
    pub(crate) name: &'static str,
    fault: fn(&str) -> Option<String>,
}

fn told(fault: Option<&'static str>) -> Option<String> {
    fault.map(str::to_owned)
}

/// A prefix may end in a dash.
fn prefix(text: &str, fault: fn(&str) -> Option<&'static str>) -> Option<String> {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => told(fault(&format!("{rest}a"))),
        _ => told(fault(text)),
    }
}

fn unless(fits: bool, why: &str) -> Option<String> {
    (!fits).then(|| why.to_owned())
}

/// With its dashes or without any of them.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    [8, 4, 4, 4, 12].iter().enumerate().all(|(at, length)| {
        rest = rest.strip_prefix('-').filter(|_| at > 0).unwrap_or(rest);
        let digits = rest.get(..*length).filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
        rest = &rest[digits.map_or(0, str::len)..];
        digits.is_some()
    }) && rest.is_empty()
}

/// As `strfmt` has it, where nothing is no base64.
fn is_base64(text: &str) -> bool {
    !text.is_empty() && STANDARD.decode(text).is_ok()
}

fn is_date(text: &str) -> bool {
    text.len() == 10 && time::parse_timestamp(&format!("{text}T00:00:00Z")).is_some()
}

/// As `strfmt` has it: letters may be small, and any character may stand for the point.
fn is_datetime(text: &str) -> bool {
    let text = text.to_ascii_uppercase();
    let Some((date, time)) = text.split_once('T') else { return false };
    let Some((clock, mut rest)) = time.split_at_checked(8) else { return false };
    if !is_date(date) || time::parse_timestamp(&format!("{date}T{clock}Z")).is_none() {
        return false;
    }
    if !rest.starts_with(['Z', '+', '-']) {
        let Some(point) = rest.chars().next() else { return false };
        let fraction = &rest[point.len_utf8()..];
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() == fraction.len() {
            return false;
        }
    }
    let is_offset = |rest: &str| {
        let bytes = rest.as_bytes();
        bytes.len() == 5 && bytes[2] == b':' && [0, 1, 3, 4].iter().all(|at| bytes[*at].is_ascii_digit())
    };
    rest == "Z" || rest.strip_prefix(['+', '-']).is_some_and(is_offset)
}

static FORMATS: [Format; 13] = [
    Format { name: "dns1123Label", fault: |text| told(names::label_fault(text)) },
    Format { name: "dns1123Subdomain", fault: |text| told(names::subdomain_fault(text)) },
    Format { name: "dns1035Label", fault: |text| told(names::label_1035_fault(text)) },
    Format { name: "qualifiedName", fault: |text| told(names::qualified_fault(text)) },
    Format { name: "dns1123LabelPrefix", fault: |text| prefix(text, names::label_fault) },
    Format { name: "dns1123SubdomainPrefix", fault: |text| prefix(text, names::subdomain_fault) },
    Format { name: "dns1035LabelPrefix", fault: |text| prefix(text, names::label_1035_fault) },
    Format { name: "labelValue", fault: |text| told(names::label_value_fault(text)) },
    Format { name: "uri", fault: |text| unless(Url::parse(text).is_ok(), "invalid URI for request") },
    Format { name: "uuid", fault: |text| unless(is_uuid(text), "does not match the UUID format") },
    Format { name: "byte", fault: |text| unless(is_base64(text), "invalid base64") },
    Format { name: "date", fault: |text| unless(is_date(text), "invalid date") },
    Format { name: "datetime", fault: |text| unless(is_datetime(text), "invalid datetime") },
];

/// The format of that name.
pub(super) fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

impl Format {
    /// What is wrong with a text, as an optional list.
    pub(super) fn validate<'a>(&self, text: &str, budget: &mut Budget) -> Answer<'a> {
        budget.charge_bytes(text.len())?;
        Ok(match (self.fault)(text) {
            Some(why) => Value::some(Value::list(vec![why.into()])),
            None => Value::Optional(None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_those_of_strfmt() {
        let id = "123e4567-e89b-12d3-a456-426614174000";
        for (name, fits, others) in [
            (
                "uuid",
                vec![id, "123E4567E89B12D3A456426614174000"],
                vec![
                    "",
                    "x/y",
                    "-123e4567-e89b-12d3-a456-42661417400",
                    "123e4567--e89b-12d3-a456-426614174000",
                ],
            ),
            ("byte", vec!["YQ==", "YWJj"], vec!["", "abc", "x/y", "YQ="]),
            (
                "date",
                vec!["2026-01-01", "2024-02-29"],
                vec!["", "2026-02-29", "2026-1-1", "2026-01-01T00:00:00Z"],
            ),
            (
                "datetime",
                vec!["2026-01-01T00:00:00Z", "2026-01-01t00:00:00.5z", "2026-01-01T00:00:00+99:00"],
                vec!["", "2026-01-01", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00.Z", "2026-01-01T00:00Z"],
            ),
        ] {
            let wrong = |text: &&str| (named(name).unwrap().fault)(text).is_some();
            assert!(!fits.iter().any(wrong), "{name}");
            assert!(others.iter().all(wrong), "{name}");
        }
    }
}
