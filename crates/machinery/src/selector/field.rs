//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! Follows `k8s.io/apimachinery/pkg/fields`; which fields a kind has is in its module.

use std::borrow::Cow;

use serde_json::Value;

use crate::object::Object;
use crate::resource::Resource;
use crate::status::Status;

/// Fields that an object must have or not have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    pointer: Cow<'static, str>,
    /// Where the value is, if it isn't there.
    otherwise: Option<&'static str>,
    value: String,
    equal: bool,
}

const NAME: &str = "/metadata/name";
const NAMESPACE: &str = "/metadata/namespace";

impl FieldSelector {
    /// The selector in `text`; empty text selects everything.
    ///
    /// # Errors
    /// 400, if the text is no selector, or names a field that objects of the resource can't be selected by.
    pub fn parse(resource: &Resource, text: &str) -> Result<Self, Status> {
        let mut terms = Vec::new();
        for part in split(text).into_iter().filter(|part| !part.is_empty()) {
            let (field, value, equal) = term(&part).ok_or_else(|| {
                Status::bad_request(format!(
                    "the field selector {text:?} is invalid: {part:?} has no =, == or !="
                ))
            })?;
            let pointer = pointer(resource, field)
                .ok_or_else(|| Status::bad_request(format!("field label not supported: {field}")))?;
            let value = unescape(value).ok_or_else(|| {
                Status::bad_request(format!(
                    "the field selector {text:?} is invalid: a lone \\ or a sign in {value:?}"
                ))
            })?;
            let otherwise = resource.rules.selectable_otherwise().iter();
            let otherwise = otherwise.filter(|(known, _)| *known == pointer).map(|(_, other)| *other).next();
            terms.push(Term { pointer, otherwise, value, equal });
        }
        Ok(FieldSelector { terms })
    }

    /// The value that a selector of any kind of objects requires of a field, if it does; nothing of a text that is no
    /// selector (upstream's `RequiresExactMatch`).
    pub fn required(text: &str, field: &str) -> Option<String> {
        let parts = split(text);
        let terms: Option<Vec<_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| term(part)).collect();
        let mut found = terms?.into_iter().filter(|(name, _, equal)| *equal && *name == field);
        unescape(found.next()?.1)
    }

    /// Whether `object` is selected.
    pub fn matches(&self, object: &Object) -> bool {
        self.terms.iter().all(|term| {
            let is_there = |found: &&Value| !found.is_null() && **found != "";
            let otherwise = term.otherwise.and_then(|pointer| object.pointer(pointer));
            let found = object.pointer(&term.pointer).filter(is_there).or(otherwise);
            let same = match found {
                None | Some(Value::Null) => {
                    term.value.is_empty() || (term.value == "false" && is_flag(&term.pointer))
                }
                Some(Value::String(text)) => *text == term.value,
                Some(Value::Bool(value)) => value.to_string() == term.value,
                Some(Value::Number(number)) => number.to_string() == term.value,
                Some(_) => false,
            };
            same == term.equal
        })
    }

    /// Whether every object is selected.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The one name that is selected, if there is such.
    pub fn name(&self) -> Option<&str> {
        self.value_at(NAME)
    }

    /// The value that the field at a JSON pointer must have, if there is such; an empty one for a field that must be missing
    /// or empty.
    pub fn value_at(&self, pointer: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.pointer == pointer && term.equal).map(|term| term.value.as_str())
    }
}

/// Fields that are false where they are missing.
fn is_flag(pointer: &str) -> bool {
    matches!(pointer, "/spec/unschedulable" | "/spec/hostNetwork")
}

fn pointer(resource: &Resource, field: &str) -> Option<Cow<'static, str>> {
    if let Some(pointer) = resource.custom.as_ref().and_then(|custom| custom.selectable(field)) {
        return Some(pointer.to_owned().into());
    }
    match field {
        "metadata.name" => Some(NAME.into()),
        "metadata.namespace" => Some(NAMESPACE.into()),
        _ => resource
            .rules
            .selectable()
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, pointer)| (*pointer).into()),
    }
}

/// The parts between commas that no backslash stands before.
fn split(text: &str) -> Vec<String> {
    let (mut parts, mut part, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        if c == ',' && !escaped {
            parts.push(std::mem::take(&mut part));
        } else {
            part.push(c);
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(part);
    parts
}

/// Field, value and whether they must be equal.
fn term(part: &str) -> Option<(&str, &str, bool)> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((field, value, false));
    }
    let value = rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?;
    Some((field, value, true))
}

fn unescape(value: &str) -> Option<String> {
    let (mut text, mut chars) = (String::new(), value.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|c| matches!(c, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}
