//! Faults that fields of many kinds can have.

use std::collections::HashSet;

use ipnet::IpNet;
use machinery::{Cause, Faults, Object, name, network_of};
use serde_json::Value;

static NULL: Value = Value::Null;

const PORT_NUMBER: &str = "must be between 1 and 65535, inclusive";
const IMMUTABLE: &str = "field is immutable";

/// A top-level part of an object, null where there is none.
pub(crate) fn part<'a>(object: &'a Object, field: &str) -> &'a Value {
    object.0.get(field).unwrap_or(&NULL)
}

/// The text of a field, empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The items of a list, none where there is no list.
pub(crate) fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The items of a list with the paths that causes name them by.
pub(crate) fn paths<'a>(value: &'a Value, path: &str) -> impl Iterator<Item = (String, &'a Value)> {
    items(value).iter().enumerate().map(move |(index, item)| (format!("{path}[{index}]"), item))
}

/// Gives a field of a JSON object a value where it has none.
pub(crate) fn default(value: &mut Value, field: &str, default: impl Into<Value>) {
    if let Value::Object(map) = value {
        let entry = map.entry(field).or_insert(Value::Null);
        if entry.is_null() {
            *entry = default.into();
        }
    }
}

/// Gives every item of the list in `field` what `each` says.
pub(crate) fn default_each(value: &mut Value, field: &str, mut each: impl FnMut(&mut Value)) {
    let list = value.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten().for_each(&mut each);
}

/// A field that must not be empty; whether it isn't.
pub(crate) fn require(value: &Value, path: impl Into<String>, why: &str, faults: &mut Faults) -> bool {
    let there = match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    };
    if !there {
        faults.push(Cause::required(path, why));
    }
    there
}

/// A field that must be one of `choices`; nothing is as wrong as another value.
pub(crate) fn one_of(value: &Value, path: impl Into<String>, choices: &[&str], faults: &mut Faults) {
    if !value.as_str().is_some_and(|text| choices.contains(&text)) {
        let empty = Value::from("");
        let value = if value.is_null() { &empty } else { value };
        faults.push(Cause::not_supported(path, value, choices));
    }
}

/// A field that may not change.
pub(crate) fn immutable(path: &str, new: &Object, old: &Object, faults: &mut Faults) {
    let pointer = format!("/{}", path.replace('.', "/"));
    let value = new.pointer(&pointer);
    if value != old.pointer(&pointer) {
        faults.push(Cause::invalid(path, value.unwrap_or(&NULL), IMMUTABLE));
    }
}

/// A text that `fault` has to find no fault with.
pub(crate) fn named(
    value: &Value,
    path: impl Into<String>,
    fault: fn(&str) -> Option<&'static str>,
    faults: &mut Faults,
) {
    if let Some(why) = fault(value.as_str().unwrap_or_default()) {
        faults.push(Cause::invalid(path, value, why));
    }
}

/// A name that stands as one segment in a path.
pub(crate) fn segment_fault(name: &str) -> Option<&'static str> {
    match name {
        "." | ".." => Some("may not be '.' or '..'"),
        name if name.contains(['/', '%']) => Some("may not contain '/' or '%'"),
        _ => None,
    }
}

/// The number of a port.
pub(crate) fn port_number(value: &Value, path: impl Into<String>, faults: &mut Faults) {
    if !value.as_i64().is_some_and(|port| (1..=65535).contains(&port)) {
        faults.push(Cause::invalid(path, value, PORT_NUMBER));
    }
}

/// Everything that is wrong with the name of a port (RFC 6335), as upstream counts it.
pub(crate) fn port_name_faults(name: &str) -> impl Iterator<Item = &'static str> + use<> {
    let bytes = name.as_bytes();
    let known = bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-');
    [
        (name.len() > 15, "must be no more than 15 characters"),
        (!known || name.is_empty(), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (!bytes.iter().any(u8::is_ascii_lowercase), "must contain at least one letter (a-z)"),
        (name.contains("--"), "must not contain consecutive hyphens"),
        (name.starts_with('-') || name.ends_with('-'), "must not begin or end with a hyphen"),
    ]
    .into_iter()
    .filter_map(|(is_wrong, why)| is_wrong.then_some(why))
}

/// The name of a port.
pub(crate) fn port_name(value: &Value, path: impl Into<String>, faults: &mut Faults) {
    let path = path.into();
    for why in port_name_faults(value.as_str().unwrap_or_default()) {
        faults.push(Cause::invalid(&path, value, why));
    }
}

/// A number that must lie between two others, both included.
pub(crate) fn between(value: &Value, path: impl Into<String>, least: i64, most: i64, faults: &mut Faults) {
    if value.as_i64().is_some_and(|number| !(least..=most).contains(&number)) {
        let why = match (least, most) {
            (least, i64::MAX) => format!("must be greater than or equal to {least}"),
            (least, most) => format!("must be between {least} and {most}, inclusive"),
        };
        faults.push(Cause::invalid(path, value, &why));
    }
}

/// `example.com/name`: a DNS subdomain and a path below it.
pub(crate) fn domain_path(value: &Value, path: &str, faults: &mut Faults) {
    let text = value.as_str().unwrap_or_default();
    if text.is_empty() {
        faults.push(Cause::required(path, ""));
        return;
    }
    let fits = text.split_once('/').is_some_and(|(domain, rest)| {
        name::subdomain_fault(domain).is_none()
            && !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b))
    });
    if !fits {
        let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
        faults.push(Cause::invalid(path, value, why));
    }
}

/// The faults of a network; the network, if it is one.
pub(crate) fn network(value: &Value, path: impl Into<String>, faults: &mut Faults) -> Option<IpNet> {
    let network = network_of(value.as_str().unwrap_or_default());
    if network.is_none() {
        let why = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
        faults.push(Cause::invalid(path, value, why));
    }
    network
}

/// A list of texts without one twice.
pub(crate) fn unique(list: &Value, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (path, item) in paths(list, path) {
        if !seen.insert(item) {
            faults.push(Cause::duplicate(path, item));
        }
    }
}

/// Items of a list whose `field` stands in an earlier one already.
pub(crate) fn unique_by(list: &Value, field: &str, path: &str, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (path, item) in paths(list, path) {
        if !seen.insert(&item[field]) {
            faults.push(Cause::duplicate(format!("{path}.{field}"), &item[field]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_ports_are_told_from_others() {
        let faults = |name: &str| {
            let mut faults = Faults::default();
            port_name(&name.into(), "p", &mut faults);
            faults.len()
        };
        assert_eq!(["http", "h2c", "a-b"].map(faults), [0, 0, 0]);
        assert_eq!(["80", "-a", "a-", "a--b", "a234567890123456"].map(faults), [1; 5]);
        assert_eq!(["", "A", "50%", ".."].map(faults), [2; 4]);
    }
}
