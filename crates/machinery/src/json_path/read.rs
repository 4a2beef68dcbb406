//! Reading paths.

use std::str::FromStr;

use serde_json::Value;

use super::{Comparison, Condition, LONGEST, Operand, Path, Step};

/// How deep filters may lie in filters.
const DEEPEST: usize = 16;
/// The longest operators first: `<` begins `<=`.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    (">=", Comparison::GreaterOrEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

/// What is wrong with a path, in words for who wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PathError(String);

/// Where the first of these characters is, outside of quotes, brackets and parentheses.
pub fn end_of(text: &str, closing: &[char]) -> Option<usize> {
    let (mut quote, mut is_escaped, mut depth) = (None, false, 0_usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if closing.contains(&c) && depth == 0 => return Some(at),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        if text.len() > LONGEST {
            return Err(PathError(format!("a path has at most {LONGEST} bytes")));
        }
        path(text.trim(), 0).map_err(PathError)
    }
}

fn path(text: &str, depth: usize) -> Result<Path, String> {
    if depth > DEEPEST {
        return Err(format!("filters lie more than {DEEPEST} deep"));
    }
    let is_from_root = text.starts_with('$');
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = end_of(inside, &[']']).ok_or_else(|| format!("a [ has no ] in {text:?}"))?;
            steps.push(brackets(inside[..end].trim(), depth)?);
            rest = &inside[end + 1..];
            continue;
        }
        if let Some(beneath) = rest.strip_prefix("..") {
            steps.push(Step::Beneath);
            rest = beneath;
            if rest.starts_with('[') {
                continue;
            }
        } else {
            rest = rest.strip_prefix('.').unwrap_or(rest);
        }
        let (name, after) = name(rest);
        match name.as_str() {
            "*" => steps.push(Step::All),
            // `{.}` is where one is.
            "" if after.is_empty() && steps.is_empty() => {}
            // `.items.[0]` is `.items[0]`.
            "" if after.starts_with('[') => {}
            "" => return Err(format!("{text:?} is no path: a name is missing before {after:?}")),
            _ => steps.push(Step::Fields(vec![name])),
        }
        rest = after;
    }
    Ok(Path { is_from_root, steps })
}

/// The name that a text begins with, without its escapes, and the rest.
fn name(text: &str) -> (String, &str) {
    let (mut name, mut is_escaped) = (String::new(), false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => {
                is_escaped = false;
                name.push(c);
            }
            '\\' => is_escaped = true,
            '.' | '[' => return (name, &text[at..]),
            _ => name.push(c),
        }
    }
    (name, "")
}

/// What stands in brackets.
fn brackets(inside: &str, depth: usize) -> Result<Step, String> {
    let wrong =
        || format!("[{inside}] is none of [*], [0], [0,1], [0:2], ['name'] and [?(@.field==\"value\")]");
    if inside == "*" {
        return Ok(Step::All);
    }
    if let Some(filter) = inside.strip_prefix("?(").and_then(|filter| filter.strip_suffix(')')) {
        return condition(filter.trim(), depth + 1).map(Step::Filter);
    }
    if inside.starts_with(['"', '\'']) {
        let mut names = Vec::new();
        let mut rest = inside;
        loop {
            let (name, after) = quoted(rest)?;
            names.push(name);
            match after.trim().strip_prefix(',') {
                Some(more) => rest = more.trim(),
                None if after.trim().is_empty() => return Ok(Step::Fields(names)),
                None => return Err(wrong()),
            }
        }
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| wrong());
    if inside.contains(':') {
        let parts: Vec<&str> = inside.split(':').map(str::trim).collect();
        let place = |at: usize| match parts.get(at) {
            None | Some(&"") => Ok(None),
            Some(text) => number(text).map(Some),
        };
        let every = place(2)?.unwrap_or(1);
        if parts.len() > 3 || every < 1 {
            return Err(wrong());
        }
        return Ok(Step::Slice(place(0)?, place(1)?, every));
    }
    inside.split(',').map(number).collect::<Result<_, _>>().map(Step::Places)
}

fn condition(text: &str, depth: usize) -> Result<Condition, String> {
    let Some(at) = end_of(text, &['=', '!', '<', '>']) else {
        return path(text, depth).map(Condition::Is);
    };
    let (left, rest) = text.split_at(at);
    let found =
        COMPARISONS.iter().find_map(|(sign, comparison)| Some((rest.strip_prefix(sign)?, comparison)));
    let (right, comparison) =
        found.ok_or_else(|| format!("{rest:?} begins with none of ==, !=, <, <=, > and >="))?;
    Ok(Condition::Compare(operand(left, depth)?, *comparison, operand(right, depth)?))
}

fn operand(text: &str, depth: usize) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['"', '\'']) {
        let text = whole_quoted(text).map_err(|PathError(wrong)| wrong)?;
        return Ok(Operand::Value(Value::String(text)));
    }
    if text.starts_with(['@', '$', '.']) {
        return path(text, depth).map(Operand::Path);
    }
    let value =
        serde_json::from_str::<Value>(text).ok().filter(|value| value.is_number() || value.is_boolean());
    value
        .map(Operand::Value)
        .ok_or_else(|| format!("{text:?} is no path, text in quotes, number, true or false"))
}

/// The text in the quotes that a whole text stands in, without its escapes.
///
/// # Errors
/// It stands in none, or more stands behind them.
pub fn whole_quoted(text: &str) -> Result<String, PathError> {
    match quoted(text).map_err(PathError)? {
        (text, "") => Ok(text),
        (_, after) => Err(PathError(format!("{after:?} stands behind a text in quotes"))),
    }
}

/// The text in the quotes that a text begins with, and the rest.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let open = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let open = open.ok_or_else(|| format!("{text:?} is no text in quotes"))?;
    let (mut said, mut is_escaped) = (String::new(), false);
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => {
                is_escaped = false;
                said.push(match c {
                    'n' => '\n',
                    't' => '\t',
                    'r' => '\r',
                    other => other,
                });
            }
            '\\' => is_escaped = true,
            _ if c == open => return Ok((said, &text[at + 1..])),
            _ => said.push(c),
        }
    }
    Err(format!("the quotes of {text} have no end"))
}
