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

fn is_uuid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    lengths && text.bytes().all(|b| b == b'-' || b.is_ascii_hexdigit())
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
    Format { name: "byte", fault: |text| unless(STANDARD.decode(text).is_ok(), "invalid base64") },
    Format {
        name: "date",
        fault: |text| unless(text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(), "invalid date"),
    },
    Format {
        name: "datetime",
        fault: |text| unless(time::parse_timestamp(text).is_some(), "invalid datetime"),
    },
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
