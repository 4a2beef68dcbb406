//! Reading templates.

use std::str::FromStr;

use serde_json::Value;

use super::{Comparison, Condition, Operand, Path, Piece, Step, Template};

/// The longest template, and how deep its ranges and filters may lie.
const LONGEST: usize = 8 << 10;
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

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("a jsonpath template has at most {LONGEST} bytes"));
        }
        // The pieces of each range that is open, with the path of each; the first is the template itself.
        let mut open: Vec<(Option<Path>, Vec<Piece>)> = vec![(None, Vec::new())];
        let mut rest = text;
        while !rest.is_empty() {
            let (before, inside, after) = next_braces(rest)?;
            let pieces = innermost(&mut open)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            rest = after;
            let Some(inside) = inside.map(str::trim) else { continue };
            if inside == "end" {
                let Some((Some(path), pieces)) = open.pop() else {
                    return Err("there is an {end} without a {range}".to_owned());
                };
                innermost(&mut open)?.push(Piece::Range(path, pieces));
            } else if let Some(path) = inside.strip_prefix("range").filter(|path| !is_name(path)) {
                if open.len() > DEEPEST {
                    return Err(format!("ranges lie more than {DEEPEST} deep"));
                }
                open.push((Some(path.trim().parse()?), Vec::new()));
            } else if inside.starts_with(['"', '\'']) {
                innermost(&mut open)?.push(Piece::Text(whole_quoted(inside)?));
            } else {
                innermost(&mut open)?.push(Piece::Values(inside.parse()?));
            }
        }
        match open.pop() {
            Some((None, pieces)) => Ok(Template(pieces)),
            _ => Err("a {range} has no {end}".to_owned()),
        }
    }
}

/// The pieces that the next one belongs to.
fn innermost(open: &mut [(Option<Path>, Vec<Piece>)]) -> Result<&mut Vec<Piece>, String> {
    open.last_mut().map(|(_, pieces)| pieces).ok_or_else(|| "there is an {end} without a {range}".to_owned())
}

/// Whether a word goes on here: `ranges` is a field.
fn is_name(rest: &str) -> bool {
    rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

/// What is before the next braces, in them, and after them.
fn next_braces(text: &str) -> Result<(&str, Option<&str>, &str), String> {
    let Some(start) = text.find('{') else { return Ok((text, None, "")) };
    let end = end_of(&text[start + 1..], '}').ok_or("a { has no }")?;
    let (inside, after) = text[start + 1..].split_at(end);
    Ok((&text[..start], Some(inside), &after[1..]))
}

/// Where `closing` is, outside of quotes, brackets and parentheses.
fn end_of(text: &str, closing: char) -> Option<usize> {
    let (mut quote, mut is_escaped, mut depth) = (None, false, 0_usize);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if c == closing && depth == 0 => return Some(at),
            (None, '[' | '(') => depth += 1,
            (None, ']' | ')') => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

impl FromStr for Path {
    type Err = String;

    /// Reads a path, with braces around it or not.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let text = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text).trim();
        if text.len() > LONGEST {
            return Err(format!("a path has at most {LONGEST} bytes"));
        }
        path(text, 0)
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
            let end = end_of(inside, ']').ok_or_else(|| format!("a [ has no ] in {text:?}"))?;
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
    let found = (0..text.len()).filter(|at| text.is_char_boundary(*at)).find_map(|at| {
        let (sign, comparison) = COMPARISONS.iter().find(|(sign, _)| text[at..].starts_with(sign))?;
        // Not one within quotes or brackets.
        end_of(text, sign.chars().next()?).filter(|end| *end == at)?;
        Some((at, sign.len(), *comparison))
    });
    match found {
        None => path(text, depth).map(Condition::Is),
        Some((at, length, comparison)) => {
            let (left, right) = (operand(&text[..at], depth)?, operand(&text[at + length..], depth)?);
            Ok(Condition::Compare(left, comparison, right))
        }
    }
}

fn operand(text: &str, depth: usize) -> Result<Operand, String> {
    let text = text.trim();
    if text.starts_with(['"', '\'']) {
        return whole_quoted(text).map(|text| Operand::Value(Value::String(text)));
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

fn whole_quoted(text: &str) -> Result<String, String> {
    match quoted(text)? {
        (text, "") => Ok(text),
        (_, after) => Err(format!("{after:?} stands behind a text in quotes")),
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
