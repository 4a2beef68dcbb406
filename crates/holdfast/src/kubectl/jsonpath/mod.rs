//! Templates of JSONPath, as kubectl has them (`-o jsonpath=...`, `--sort-by`): text with paths in braces, ranges, filters.
//!
//! Differences from kubectl: a place in a list that isn't there is nothing, as a missing field is, and no error.

mod read;

use anyhow::Context;
use serde_json::Value;

/// How many values one template may come by: a few more than there are in the largest answers.
const MOST_VALUES: usize = 4_000_000;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Values(Path),
    Range(Path, Vec<Piece>),
}

/// The way to values.
#[derive(Debug, Clone, PartialEq)]
pub struct Path {
    /// From the whole, rather than from where one is.
    is_from_root: bool,
    steps: Vec<Step>,
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// Fields by their names.
    Fields(Vec<String>),
    /// All fields, or all elements.
    All,
    /// Elements by their places, from the end where negative.
    Places(Vec<i64>),
    /// Elements from one place up to another, by steps.
    Slice(Option<i64>, Option<i64>, i64),
    /// Itself and all beneath.
    Beneath,
    /// Elements for which something holds.
    Filter(Condition),
}

#[derive(Debug, Clone, PartialEq)]
enum Condition {
    /// There is such a value.
    Is(Path),
    Compare(Operand, Comparison, Operand),
}

#[derive(Debug, Clone, PartialEq)]
enum Operand {
    Path(Path),
    Value(Value),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Template {
    /// What it says about a value.
    ///
    /// # Errors
    /// It comes by too many values; so below.
    pub fn render(&self, whole: &Value) -> anyhow::Result<String> {
        let mut out = String::new();
        let mut walk = Walk { whole, left: MOST_VALUES };
        walk.render(&self.0, whole, &mut out)?;
        Ok(out)
    }
}

impl Path {
    /// The first value that it leads to.
    pub fn first<'a>(&self, whole: &'a Value) -> anyhow::Result<Option<&'a Value>> {
        Ok(Walk { whole, left: MOST_VALUES }.find(self, whole)?.into_iter().next())
    }
}

struct Walk<'a> {
    whole: &'a Value,
    left: usize,
}

impl<'a> Walk<'a> {
    fn render(&mut self, pieces: &[Piece], at: &'a Value, out: &mut String) -> anyhow::Result<()> {
        for piece in pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Values(path) => {
                    let texts: Vec<String> = self.find(path, at)?.into_iter().map(text).collect();
                    out.push_str(&texts.join(" "));
                }
                Piece::Range(path, pieces) => {
                    for value in self.find(path, at)? {
                        self.render(pieces, value, out)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn find(&mut self, path: &Path, at: &'a Value) -> anyhow::Result<Vec<&'a Value>> {
        let mut found = vec![if path.is_from_root { self.whole } else { at }];
        for step in &path.steps {
            let mut next = Vec::new();
            for value in found {
                self.step(step, value, &mut next)?;
            }
            found = next;
        }
        Ok(found)
    }

    fn step(&mut self, step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) -> anyhow::Result<()> {
        let before = next.len();
        let elements = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match step {
            Step::Fields(names) => next.extend(names.iter().filter_map(|name| value.get(name))),
            Step::All => match value {
                Value::Object(fields) => next.extend(fields.values()),
                _ => next.extend(elements),
            },
            Step::Places(places) => {
                let there =
                    places.iter().filter_map(|place| elements.get(from_start(*place, elements.len())?));
                next.extend(there);
            }
            Step::Slice(from, to, every) => next.extend(slice(elements, *from, *to, *every)),
            Step::Beneath => self.beneath(value, next)?,
            Step::Filter(condition) => {
                for element in elements {
                    if self.holds(condition, element)? {
                        next.push(element);
                    }
                }
            }
        }
        self.count(next.len() - before)
    }

    fn beneath(&mut self, value: &'a Value, all: &mut Vec<&'a Value>) -> anyhow::Result<()> {
        let mut due = vec![value];
        while let Some(value) = due.pop() {
            all.push(value);
            self.count(1)?;
            // The last one in is the first one out.
            match value {
                Value::Object(fields) => due.extend(fields.values().rev()),
                Value::Array(elements) => due.extend(elements.iter().rev()),
                _ => {}
            }
        }
        Ok(())
    }

    fn count(&mut self, values: usize) -> anyhow::Result<()> {
        let left = self.left.checked_sub(values);
        self.left = left.with_context(|| {
            format!("the template comes by more than {MOST_VALUES} values; name the fields on the way instead of `..`")
        })?;
        Ok(())
    }

    fn holds(&mut self, condition: &Condition, at: &'a Value) -> anyhow::Result<bool> {
        match condition {
            Condition::Is(path) => Ok(!self.find(path, at)?.is_empty()),
            Condition::Compare(left, comparison, right) => {
                let (left, right) = (self.operand(left, at)?, self.operand(right, at)?);
                let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
                Ok(compare(&left, *comparison, &right))
            }
        }
    }

    fn operand(&mut self, operand: &Operand, at: &'a Value) -> anyhow::Result<Option<Value>> {
        match operand {
            Operand::Path(path) => Ok(self.find(path, at)?.first().map(|value| (*value).clone())),
            Operand::Value(value) => Ok(Some(value.clone())),
        }
    }
}

/// How two values are ordered, if they are: numbers, or texts.
pub fn order(left: &Value, right: &Value) -> Option<std::cmp::Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = order(left, right);
    match comparison {
        Comparison::Equal => order.map_or(left == right, |order| order.is_eq()),
        Comparison::NotEqual => order.map_or(left != right, |order| order.is_ne()),
        Comparison::Less => order.is_some_and(|order| order.is_lt()),
        Comparison::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Comparison::Greater => order.is_some_and(|order| order.is_gt()),
        Comparison::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    }
}

/// A place from the start; nothing if there is none.
fn from_start(place: i64, length: usize) -> Option<usize> {
    match usize::try_from(place) {
        Ok(place) => Some(place),
        Err(_) => length.checked_sub(usize::try_from(place.unsigned_abs()).ok()?),
    }
}

fn slice(elements: &[Value], from: Option<i64>, to: Option<i64>, every: i64) -> impl Iterator<Item = &Value> {
    let length = elements.len();
    // What is before the start is the start.
    let bound = |place: i64| from_start(place, length).unwrap_or(0).min(length);
    let (from, to) = (from.map_or(0, bound), to.map_or(length, bound));
    let every = usize::try_from(every).unwrap_or(1).max(1);
    elements[from..to.max(from)].iter().step_by(every)
}

/// A value as kubectl prints it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
