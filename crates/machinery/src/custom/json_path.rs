//! JSON paths as definitions use them for columns: `.spec.size`, `.status.conditions[?(@.type=="Ready")].status`,
//! `.metadata.annotations['example\.com/a']`, `.spec.list[*].name`.
//!
//! Follows `k8s.io/client-go/util/jsonpath` for what can stand in a single path.

use serde_json::Value;

use crate::pointer::escaped;

/// The JSON pointer of a path of plain fields; empty for an empty path.
pub(super) fn pointer_of(path: &str) -> String {
    let fields = path.split('.').filter(|field| !field.is_empty());
    fields.map(|field| format!("/{}", escaped(field))).collect()
}

/// A path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    /// Of a list; from its end where negative.
    Index(i64),
    /// A slice: where it begins, where it ends, and its step.
    Slice(Option<i64>, Option<i64>, usize),
    All,
    /// All values at any depth.
    Descend,
    Filter(Vec<Step>, Option<(Operator, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Longer paths find nothing: a table follows a path for each of its rows.
const MOST_STEPS: usize = 64;
/// More values than that are not looked at, for the same reason: `..` leads to all of an object.
const MOST_FOUND: usize = 10_000;

impl JsonPath {
    /// The path in `text`; nothing if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parser = Parser { rest: text.trim_start_matches('$') };
        let mut steps = Vec::new();
        while !parser.rest.is_empty() {
            parser.step(&mut steps)?;
            if steps.len() > MOST_STEPS {
                return None;
            }
        }
        Some(JsonPath(steps))
    }

    /// The first value that it leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        walk(&self.0, value).into_iter().next()
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    fn step(&mut self, steps: &mut Vec<Step>) -> Option<()> {
        if let Some(rest) = self.rest.strip_prefix("..") {
            steps.push(Step::Descend);
            self.rest = rest;
            if !rest.starts_with('[') {
                self.field(steps)?;
            }
        } else if let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            if !rest.is_empty() && !rest.starts_with('[') {
                self.field(steps)?;
            }
        } else if let Some(rest) = self.rest.strip_prefix('[') {
            let end = closing(rest)?;
            let (inner, rest) = (&rest[..end], &rest[end + 1..]);
            steps.push(bracket(inner.trim())?);
            self.rest = rest;
        } else {
            self.field(steps)?;
        }
        Some(())
    }

    fn field(&mut self, steps: &mut Vec<Step>) -> Option<()> {
        let (mut name, mut escaped, mut end) = (String::new(), false, self.rest.len());
        for (at, c) in self.rest.char_indices() {
            match c {
                _ if escaped => {
                    name.push(c);
                    escaped = false;
                }
                '\\' => escaped = true,
                '.' | '[' => {
                    end = at;
                    break;
                }
                _ => name.push(c),
            }
        }
        self.rest = &self.rest[end..];
        match name.as_str() {
            "" => return None,
            "*" => steps.push(Step::All),
            _ => steps.push(Step::Field(name)),
        }
        Some(())
    }
}

/// Where the bracket ends whose inside `text` begins with.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote, mut escaped) = (0, None, false);
    for (at, c) in text.char_indices() {
        match (c, quote) {
            _ if escaped => escaped = false,
            ('\\', _) => escaped = true,
            (c, Some(open)) if c == open => quote = None,
            (_, Some(_)) => {}
            ('\'' | '"', None) => quote = Some(c),
            ('[', None) => depth += 1,
            (']', None) if depth == 0 => return Some(at),
            (']', None) => depth -= 1,
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> Option<String> {
    let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'))?;
    let inner = text.strip_prefix(quote)?.strip_suffix(quote)?;
    let (mut out, mut escaped) = (String::new(), false);
    for c in inner.chars() {
        if c == '\\' && !escaped {
            escaped = true;
        } else {
            out.push(c);
            escaped = false;
        }
    }
    Some(out)
}

fn bracket(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        return filter_of(filter.trim());
    }
    if let Some(name) = quoted(inner) {
        return Some(Step::Field(name));
    }
    if inner.contains(':') {
        let mut parts = inner.split(':').map(str::trim);
        let mut number = || match parts.next() {
            None | Some("") => Some(None),
            Some(text) => text.parse::<i64>().ok().map(Some),
        };
        let (from, to, every) = (number()?, number()?, number()?);
        return Some(Step::Slice(from, to, usize::try_from(every.unwrap_or(1)).ok().filter(|n| *n > 0)?));
    }
    inner.parse().ok().map(Step::Index)
}

fn filter_of(text: &str) -> Option<Step> {
    const OPERATORS: [(&str, Operator); 6] = [
        ("==", Operator::Equal),
        ("!=", Operator::NotEqual),
        ("<=", Operator::LessOrEqual),
        (">=", Operator::GreaterOrEqual),
        ("<", Operator::Less),
        (">", Operator::Greater),
    ];
    let found = OPERATORS.iter().filter_map(|(sign, operator)| Some((text.find(sign)?, sign, *operator)));
    // The first sign counts, the longer one of those that begin there.
    let found = found.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
    let (left, compared) = match found {
        None => (text, None),
        Some((at, sign, operator)) => {
            let right = text[at + sign.len()..].trim();
            let right = match quoted(right) {
                Some(text) => Value::String(text),
                None => serde_json::from_str(right).ok()?,
            };
            (text[..at].trim(), Some((operator, right)))
        }
    };
    let JsonPath(steps) = JsonPath::parse(left.strip_prefix('@')?)?;
    // One filter within another could take very long.
    let is_plain = steps.iter().all(|step| matches!(step, Step::Field(_) | Step::Index(_)));
    is_plain.then_some(Step::Filter(steps, compared))
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut found = vec![value];
    for step in steps {
        let mut next = Vec::new();
        for value in found {
            take(step, value, &mut next);
            next.truncate(MOST_FOUND);
        }
        found = next;
    }
    found
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

fn take<'a>(step: &Step, value: &'a Value, next: &mut Vec<&'a Value>) {
    match step {
        Step::Field(name) => next.extend(value.get(name)),
        Step::Index(index) => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            next.extend(position(*index, list.len()).and_then(|at| list.get(at)));
        }
        Step::Slice(from, to, every) => {
            let list = value.as_array().map(Vec::as_slice).unwrap_or_default();
            let edge = |index: &Option<i64>, usual: usize| match index {
                None => usual,
                Some(index) => position(*index, list.len()).unwrap_or(0).min(list.len()),
            };
            let (from, to) = (edge(from, 0), edge(to, list.len()));
            next.extend(list.get(from..to).unwrap_or_default().iter().step_by(*every));
        }
        Step::All => next.extend(children(value)),
        Step::Descend => {
            let mut open = vec![value];
            while let Some(value) = open.pop() {
                if next.len() >= MOST_FOUND {
                    return;
                }
                next.push(value);
                open.extend(children(value));
            }
        }
        Step::Filter(path, compared) => {
            next.extend(children(value).filter(|item| {
                let found = walk(path, item).into_iter().next();
                match compared {
                    None => found.is_some(),
                    Some((operator, right)) => found.is_some_and(|left| holds(*operator, left, right)),
                }
            }));
        }
    }
}

fn position(index: i64, length: usize) -> Option<usize> {
    if index >= 0 {
        return usize::try_from(index).ok();
    }
    length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
}

fn holds(operator: Operator, left: &Value, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right))
        }
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(std::cmp::Ordering::Equal),
    };
    match operator {
        Operator::Equal => order.is_some_and(|order| order.is_eq()),
        Operator::NotEqual => order.is_none_or(|order| order.is_ne()),
        Operator::Less => order.is_some_and(|order| order.is_lt()),
        Operator::LessOrEqual => order.is_some_and(|order| order.is_le()),
        Operator::Greater => order.is_some_and(|order| order.is_gt()),
        Operator::GreaterOrEqual => order.is_some_and(|order| order.is_ge()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_lead_to_values() {
        let object = json!({
            "metadata": {"annotations": {"example.com/a": "x"}},
            "spec": {"list": [{"name": "a", "n": 1}, {"name": "b", "n": 2}], "a b": true},
            "status": {"conditions": [{"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        });
        for (path, expected) in [
            (".spec.list[0].name", json!("a")),
            (".spec.list[-1].name", json!("b")),
            (".spec.list[*].name", json!("a")),
            (".spec.list[1:].name", json!("b")),
            (".spec.list.*.n", json!(1)),
            (".spec['a b']", json!(true)),
            (".metadata.annotations.example\\.com/a", json!("x")),
            (".metadata.annotations['example\\.com/a']", json!("x")),
            (".status.conditions[?(@.type==\"Ready\")].status", json!("True")),
            (".status.conditions[?(@.type=='Ready')].status", json!("True")),
            (".spec.list[?(@.n>1)].name", json!("b")),
            (".spec.list[?(@.none)].name", Value::Null),
            ("..status.conditions[0].type", json!("Synced")),
            (".spec.list[7]", Value::Null),
        ] {
            let found = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}")).first(&object).cloned();
            assert_eq!(found.unwrap_or_default(), expected, "{path}");
        }
        for bad in ["[", ".a[", ".a[x]", ".a[?(b==1)]", ".a[::0]", ".a[?(@.b==x)]"] {
            assert_eq!(JsonPath::parse(bad), None, "{bad}");
        }
        assert_eq!(pointer_of(".spec.a/b"), "/spec/a~1b");
    }

    proptest! {
        #[test]
        fn any_text_is_a_path_or_none(text in "([.\\[\\]()@?*:'\"=<>!\\\\a-c0-2\\PC-]){0,24}") {
            if let Some(path) = JsonPath::parse(&text) {
                path.first(&json!({"a": [{"b": 1}, [2]], "b": {"a": null}}));
            }
        }
    }
}
