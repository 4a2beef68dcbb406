//! Regular expressions. They are compiled once and kept, and take time as the text is long.

use std::collections::HashMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use regex::Regex;

use super::Answer;
use crate::budget::Budget;
use crate::error::Error;
use crate::re2;
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
    re2::compile(pattern, LARGEST).map(|_| ())
}

fn compiled(pattern: &str, budget: &mut Budget) -> Result<Regex, Error> {
    static KEPT: OnceLock<Mutex<HashMap<String, Regex>>> = OnceLock::new();
    let kept = KEPT.get_or_init(Mutex::default);
    if let Some(found) = kept.lock().unwrap_or_else(PoisonError::into_inner).get(pattern) {
        return Ok(found.clone());
    }
    budget.charge(COMPILING + pattern.len() as u64 * 10)?;
    let regex = re2::compile(pattern, LARGEST).map_err(Error::Failed)?;
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
