//! Selectors of devices, in CEL: what an expression sees of a device.
//!
//! Follows `k8s.io/dynamic-resource-allocation/cel`: `device.driver`, `device.attributes` and `device.capacity` by domain and
//! name, names without a domain under that of the driver, and an empty map for a domain that a device knows nothing of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use cel::{Budget, Environment, Key, MOST_OF_ONE, Map, Program, Text, Type, Value};
use k8s_openapi::api::resource::v1::{Device, DeviceAttribute};

/// A compiled selector.
#[derive(Debug)]
pub(crate) struct Selector {
    program: Program,
    /// The texts that stand in it, among which are the domains that it asks for.
    texts: BTreeSet<String>,
}

impl Selector {
    /// # Errors
    /// Why the expression can't select devices.
    pub fn compile(text: &str) -> Result<Self, String> {
        let environment = Environment::default().with("device", Type::Dyn);
        let (program, _) = Program::compile(&environment, text)
            .map_err(|error| format!("CEL compile error: {text}: {error}"))?;
        Ok(Selector { program, texts: texts(text) })
    }

    /// Whether it means a device of a driver.
    ///
    /// # Errors
    /// Why nobody can say, which keeps the whole claim from being allocated, as upstream.
    pub fn means(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let value = self.value(driver, device);
        let mut budget = Budget::new(MOST_OF_ONE);
        match self.program.evaluate(&[("device", value)], &mut budget) {
            Ok(Value::Bool(means)) => Ok(means),
            Ok(_) => Err("CEL expression evaluated to something else than a boolean".to_owned()),
            Err(error) => Err(format!("CEL runtime error: {error}")),
        }
    }

    fn value<'a>(&self, driver: &'a str, device: &'a Device) -> Value<'a> {
        let attributes = device.attributes.iter().flatten();
        let attributes = attributes.filter_map(|(name, attribute)| Some((name, attribute_value(attribute)?)));
        let capacity = device.capacity.iter().flatten();
        let capacity = capacity.filter_map(|(name, capacity)| Some((name, quantity(&capacity.value.0)?)));
        map([
            ("driver", Value::String(Text::Borrowed(driver))),
            ("allowMultipleAllocations", Value::Bool(device.allow_multiple_allocations == Some(true))),
            ("attributes", self.by_domain(driver, attributes)),
            ("capacity", self.by_domain(driver, capacity)),
        ])
    }

    fn by_domain<'a>(
        &self,
        driver: &'a str,
        values: impl Iterator<Item = (&'a String, Value<'a>)>,
    ) -> Value<'a> {
        let mut domains: BTreeMap<&str, BTreeMap<Key, Value<'a>>> = BTreeMap::new();
        for (name, value) in values {
            let (domain, name) = name.split_once('/').unwrap_or((driver, name));
            domains.entry(domain).or_default().insert(key(name), value);
        }
        let unknown = self.texts.iter().filter(|text| !domains.contains_key(text.as_str()));
        let unknown: Vec<_> = unknown.map(|text| (key(text), made(BTreeMap::new()))).collect();
        let known = domains.into_iter().map(|(domain, values)| (key(domain), made(values)));
        made(known.chain(unknown).collect())
    }
}

fn key(text: &str) -> Key {
    Key::String(Arc::from(text))
}

fn made<'a>(values: BTreeMap<Key, Value<'a>>) -> Value<'a> {
    Value::Map(Map::Made(Arc::new(values)))
}

fn map<'a, const N: usize>(fields: [(&str, Value<'a>); N]) -> Value<'a> {
    made(fields.into_iter().map(|(name, value)| (key(name), value)).collect())
}

/// What an attribute says; nothing if it is of a kind that isn't known.
fn attribute_value(attribute: &DeviceAttribute) -> Option<Value<'_>> {
    match attribute {
        DeviceAttribute { bool: Some(value), .. } => Some(Value::Bool(*value)),
        DeviceAttribute { int: Some(value), .. } => Some(Value::Int(*value)),
        DeviceAttribute { string: Some(value), .. } => Some(Value::String(Text::Borrowed(value))),
        DeviceAttribute { version: Some(value), .. } => version(value),
        _ => None,
    }
}

/// An amount, as the function of CEL makes it.
fn quantity(text: &str) -> Option<Value<'static>> {
    static PROGRAM: LazyLock<Option<Program>> = LazyLock::new(|| of_text("quantity(text)"));
    PROGRAM.as_ref()?.evaluate(&[("text", Value::from(text))], &mut Budget::default()).ok()
}

/// A version, as the function of CEL makes it.
fn version(text: &str) -> Option<Value<'static>> {
    static PROGRAM: LazyLock<Option<Program>> = LazyLock::new(|| of_text("semver(text)"));
    PROGRAM.as_ref()?.evaluate(&[("text", Value::from(text))], &mut Budget::default()).ok()
}

fn of_text(expression: &str) -> Option<Program> {
    let environment = Environment::default().with("text", Type::Dyn);
    Program::compile(&environment, expression).ok().map(|(program, _)| program)
}

/// The texts in quotes of an expression.
fn texts(expression: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut rest = expression;
    while let Some(at) = rest.find(['"', '\'']) {
        let quote = &rest[at..=at];
        let after = &rest[at + 1..];
        let Some(end) = after.find(quote) else { break };
        found.insert(after[..end].to_owned());
        rest = &after[end + 1..];
    }
    found
}
