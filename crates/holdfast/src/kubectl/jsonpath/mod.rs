//! Templates of JSONPath, as kubectl has them (`-o jsonpath=...`, `--sort-by`): text with paths in braces, ranges.

use std::str::FromStr;

use machinery::json_path::{LONGEST, Path, PathError, TooManyValues, Walk, end_of, whole_quoted};
use serde_json::Value;

/// How many values one template may come by: a few more than there are in the largest answers.
const MOST_VALUES: usize = 4_000_000;
/// How deep ranges may lie in ranges.
const DEEPEST: usize = 16;

/// A template.
#[derive(Debug, Clone, PartialEq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Values(Path),
    Range(Path, Vec<Piece>),
}

impl Template {
    /// What it says about a value.
    ///
    /// # Errors
    /// It comes by too many values.
    pub fn render(&self, whole: &Value) -> Result<String, TooManyValues> {
        let mut out = String::new();
        render(&self.0, &mut Walk::new(whole, MOST_VALUES), whole, &mut out)?;
        Ok(out)
    }
}

fn render<'a>(
    pieces: &[Piece],
    walk: &mut Walk<'a>,
    at: &'a Value,
    out: &mut String,
) -> Result<(), TooManyValues> {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Values(path) => {
                let texts: Vec<String> = walk.find(path, at)?.into_iter().map(text).collect();
                out.push_str(&texts.join(" "));
            }
            Piece::Range(path, pieces) => {
                for value in walk.find(path, at)? {
                    render(pieces, walk, value, out)?;
                }
            }
        }
    }
    Ok(())
}

/// The path of `--sort-by`, with braces around it or not.
///
/// # Errors
/// It is none.
pub fn sort_path(text: &str) -> Result<Path, PathError> {
    let text = text.trim();
    text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap_or(text).parse()
}

/// What a path leads to first, to sort by.
///
/// # Errors
/// It comes by too many values.
pub fn first<'a>(path: &Path, whole: &'a Value) -> Result<Option<&'a Value>, TooManyValues> {
    path.first(whole, MOST_VALUES)
}

/// A value as kubectl prints it.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

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
                open.push((Some(read(path)?), Vec::new()));
            } else if inside.starts_with(['"', '\'']) {
                let text = whole_quoted(inside).map_err(|wrong| wrong.to_string())?;
                innermost(&mut open)?.push(Piece::Text(text));
            } else {
                innermost(&mut open)?.push(Piece::Values(read(inside)?));
            }
        }
        match open.pop() {
            Some((None, pieces)) => Ok(Template(pieces)),
            _ => Err("a {range} has no {end}".to_owned()),
        }
    }
}

fn read(path: &str) -> Result<Path, String> {
    path.parse().map_err(|wrong: PathError| wrong.to_string())
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
    let end = end_of(&text[start + 1..], &['}']).ok_or("a { has no }")?;
    let (inside, after) = text[start + 1..].split_at(end);
    Ok((&text[..start], Some(inside), &after[1..]))
}

#[cfg(test)]
mod tests;
