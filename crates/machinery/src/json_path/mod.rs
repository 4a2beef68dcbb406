//! JSONPath, as kubectl and the columns of definitions have it: `.spec.size`, `.spec.list[*].name`,
//! `.status.conditions[?(@.type=="Ready")].status`, `.metadata.annotations['example\.com/a']`.
//!
//! Follows `k8s.io/client-go/util/jsonpath` for what can stand in one path. Differences: a place in a list that isn't there is nothing,
//! as a missing field is, and no error; a filter may compare any two plain values.

mod read;

use std::cmp::Ordering;

use serde_json::Value;

use crate::pointer::escaped;

pub use read::{PathError, end_of, whole_quoted};

/// The longest path, in bytes.
pub const LONGEST: usize = 8 << 10;
/// How many bytes of two texts are compared for what a value costs.
const COMPARED: usize = 64;

/// A path: the way to values.
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

/// A path would lead by more values than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {0} values lie on the way; name the fields on it instead of `..`")]
pub struct TooManyValues(usize);

impl Path {
    /// The first value that it leads to, by at most that many.
    ///
    /// # Errors
    /// There are more on the way.
    pub fn first<'a>(&self, whole: &'a Value, most: usize) -> Result<Option<&'a Value>, TooManyValues> {
        Ok(Walk::new(whole, most).find(self, whole)?.into_iter().next())
    }
}

/// Follows paths through one value, and counts what it looks at.
#[derive(Debug)]
pub struct Walk<'a> {
    whole: &'a Value,
    most: usize,
    left: usize,
}

impl<'a> Walk<'a> {
    /// Through `whole`, by at most that many values.
    pub fn new(whole: &'a Value, most: usize) -> Self {
        Walk { whole, most, left: most }
    }

    /// All that a path leads to from `at`, which is a part of the whole.
    ///
    /// # Errors
    /// With what was looked at before, it is too much.
    pub fn find(&mut self, path: &Path, at: &'a Value) -> Result<Vec<&'a Value>, TooManyValues> {
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

    fn step(
        &mut self,
        step: &Step,
        value: &'a Value,
        next: &mut Vec<&'a Value>,
    ) -> Result<(), TooManyValues> {
        let elements = value.as_array().map(Vec::as_slice).unwrap_or_default();
        match step {
            Step::Fields(names) => {
                self.count(names.len())?;
                next.extend(names.iter().filter_map(|name| value.get(name)));
            }
            Step::All => match value {
                Value::Object(fields) => {
                    self.count(fields.len())?;
                    next.extend(fields.values());
                }
                _ => {
                    self.count(elements.len())?;
                    next.extend(elements);
                }
            },
            Step::Places(places) => {
                self.count(places.len())?;
                let there =
                    places.iter().filter_map(|place| elements.get(from_start(*place, elements.len())?));
                next.extend(there);
            }
            Step::Slice(from, to, every) => {
                self.count(elements.len())?;
                next.extend(slice(elements, *from, *to, *every));
            }
            Step::Beneath => self.beneath(value, next)?,
            Step::Filter(condition) => {
                self.count(elements.len())?;
                for element in elements {
                    if self.holds(condition, element)? {
                        next.push(element);
                    }
                }
            }
        }
        Ok(())
    }

    fn beneath(&mut self, value: &'a Value, all: &mut Vec<&'a Value>) -> Result<(), TooManyValues> {
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

    /// Counts what is tried, whether it is found or not: that is the work.
    fn count(&mut self, values: usize) -> Result<(), TooManyValues> {
        self.left = self.left.checked_sub(values).ok_or(TooManyValues(self.most))?;
        Ok(())
    }

    fn holds(&mut self, condition: &Condition, at: &'a Value) -> Result<bool, TooManyValues> {
        match condition {
            Condition::Is(path) => Ok(!self.find(path, at)?.is_empty()),
            Condition::Compare(left, comparison, right) => {
                let (left, right) = (self.operand(left, at)?, self.operand(right, at)?);
                let (Some(left), Some(right)) = (left, right) else { return Ok(false) };
                if let (Value::String(left), Value::String(right)) = (left, right) {
                    self.count(left.len().min(right.len()) / COMPARED)?;
                }
                Ok(compare(left, *comparison, right))
            }
        }
    }

    fn operand<'b>(&mut self, operand: &'b Operand, at: &'a Value) -> Result<Option<&'b Value>, TooManyValues>
    where
        'a: 'b,
    {
        match operand {
            Operand::Path(path) => Ok(self.find(path, at)?.into_iter().next()),
            Operand::Value(value) => Ok(Some(value)),
        }
    }
}

/// How two plain values of one kind are ordered; nothing for others.
pub fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Null, Value::Null) => Some(Ordering::Equal),
        (Value::Bool(left), Value::Bool(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let order = order(left, right);
    match comparison {
        Comparison::Equal => order.is_some_and(Ordering::is_eq),
        Comparison::NotEqual => order.is_none_or(Ordering::is_ne),
        Comparison::Less => order.is_some_and(Ordering::is_lt),
        Comparison::LessOrEqual => order.is_some_and(Ordering::is_le),
        Comparison::Greater => order.is_some_and(Ordering::is_gt),
        Comparison::GreaterOrEqual => order.is_some_and(Ordering::is_ge),
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

/// The JSON pointer of a path of plain fields; empty for an empty path.
pub(crate) fn pointer_of(path: &str) -> String {
    let fields = path.split('.').filter(|field| !field.is_empty());
    fields.map(|field| format!("/{}", escaped(field))).collect()
}

#[cfg(test)]
mod tests;
