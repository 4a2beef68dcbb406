//! Events into values.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use granit_parser::{ErrorKind, Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::{Map, Value};

use super::scalar::{self, Scalar};
use crate::{Budget, DEEPEST, Exceeded, JsonError, LONGEST_PATH, MOST_DUPLICATES, cut, json_and_duplicates};

/// The namespace of the tags that YAML itself knows.
const TAGS: &str = "tag:yaml.org,2002:";

/// One document of a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// What it says.
    pub value: Value,
    /// `line 3: key "a" already set in map`, for the first keys that stand twice.
    pub duplicates: Vec<String>,
}

/// Why a text is no value.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    /// The bytes are no text.
    #[error("yaml: it is not UTF-8")]
    NotText,
    /// It is no YAML.
    #[error("yaml: {0}")]
    Syntax(ScanError),
    /// It is YAML, and has no meaning in JSON.
    #[error("yaml: line {line}: {why}")]
    Meaning {
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// Lists and maps lie too deep in each other.
    #[error("yaml: it is nested more than {DEEPEST} deep")]
    TooDeep,
    /// It is small, and what it says is not.
    #[error("yaml: {0}")]
    TooLarge(#[from] Exceeded),
    /// One object is wanted.
    #[error("yaml: it has more than one document")]
    Documents,
}

/// The value of a text with one document.
///
/// # Errors
/// If it is no YAML, has more than one document, or its value would be too large or nested too deep.
pub fn from_yaml(text: &[u8]) -> Result<Value, YamlError> {
    yaml_and_duplicates(text).map(|(value, _)| value)
}

/// The value of a text with one document, and what is to be said about keys that stand twice: nothing, or one text in
/// go-yaml's words.
///
/// # Errors
/// As [`from_yaml`].
pub fn yaml_and_duplicates(text: &[u8]) -> Result<(Value, Vec<String>), YamlError> {
    if let Some(read) = json(text)? {
        return Ok(read);
    }
    let text = std::str::from_utf8(text).map_err(|_| YamlError::NotText)?;
    let mut reader = Reader::new(text);
    let first = reader.document()?.unwrap_or(Document { value: Value::Null, duplicates: Vec::new() });
    if reader.document()?.is_some() {
        return Err(YamlError::Documents);
    }
    let told = first.duplicates.join("\n  ");
    let told = (!told.is_empty()).then(|| format!("yaml: unmarshal errors:\n  {told}"));
    Ok((first.value, told.into_iter().collect()))
}

/// Every document of a stream.
///
/// # Errors
/// If it is no YAML, or a document's value would be too large or nested too deep.
pub fn documents(text: &str) -> Result<Vec<Document>, YamlError> {
    if let Some((value, duplicates)) = json(text.as_bytes())? {
        return Ok(vec![Document { value, duplicates }]);
    }
    let (mut reader, mut documents) = (Reader::new(text), Vec::new());
    while let Some(document) = reader.document()? {
        documents.push(document);
    }
    Ok(documents)
}

/// What begins as JSON does mostly is: and JSON may have keys and escapes that YAML has not.
fn json(text: &[u8]) -> Result<Option<(Value, Vec<String>)>, YamlError> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Ok(None);
    }
    match json_and_duplicates(text) {
        Ok(read) => Ok(Some(read)),
        Err(JsonError::TooLarge(exceeded)) => Err(exceeded.into()),
        Err(JsonError::Broken(_)) => Ok(None),
    }
}

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    /// The values that aliases of this document stand for, by the parser's numbers.
    anchors: HashMap<usize, Value>,
    budget: Budget,
    duplicates: Vec<String>,
}

/// A key as it stands there.
enum Key {
    Name(String),
    Merge,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        let mut options = Options::default();
        options.set_emit_comments(false);
        options.flow_nesting_limit = DEEPEST + 1;
        options.block_nesting_limit = DEEPEST + 1;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Reader {
            parser: Parser::new_from_str_with_options(text, options),
            anchors: HashMap::new(),
            budget: Budget::default(),
            duplicates: Vec::new(),
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, usize), YamlError> {
        let next = self.parser.next_event().unwrap_or(Ok((Event::StreamEnd, Span::default())));
        match next {
            Ok((event, span)) => Ok((event, span.start.line())),
            Err(error) if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) => {
                Err(YamlError::TooDeep)
            }
            Err(error) => Err(YamlError::Syntax(error)),
        }
    }

    /// The next document; nothing at the end.
    fn document(&mut self) -> Result<Option<Document>, YamlError> {
        loop {
            match self.next()?.0 {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(..) => break,
                _ => {}
            }
        }
        self.anchors.clear();
        self.budget = Budget::default();
        let (event, line) = self.next()?;
        let value = match event {
            Event::DocumentEnd => Value::Null,
            event => self.node(event, line, 0)?,
        };
        Ok(Some(Document { value, duplicates: std::mem::take(&mut self.duplicates) }))
    }

    fn node(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Value, YamlError> {
        let (value, anchor) = match event {
            Event::Alias(anchor) => return self.alias(anchor, line),
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.scalar(text.len())?;
                let value = scalar(text, style, tag.as_deref()).and_then(Scalar::into_json);
                (value.map_err(|why| YamlError::Meaning { line, why })?, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (self.list(depth + 1)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.map(depth + 1)?, anchor),
            _ => return Err(YamlError::Meaning { line, why: "a value is missing".into() }),
        };
        if anchor > 0 {
            self.budget.value(&value)?;
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, line: usize) -> Result<Value, YamlError> {
        let why = "an anchor's value contains itself";
        let value = self.anchors.get(&anchor).ok_or_else(|| YamlError::Meaning { line, why: why.into() })?;
        self.budget.value(value)?;
        Ok(value.clone())
    }

    fn list(&mut self, depth: usize) -> Result<Value, YamlError> {
        if depth > DEEPEST {
            return Err(YamlError::TooDeep);
        }
        self.budget.list()?;
        let mut list = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(list)),
                (event, line) => list.push(self.node(event, line, depth)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, YamlError> {
        if depth > DEEPEST {
            return Err(YamlError::TooDeep);
        }
        self.budget.map()?;
        let (mut map, mut merged) = (Map::new(), BTreeSet::new());
        loop {
            let (event, line) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                return Ok(Value::Object(map));
            }
            let key = self.key(event, line)?;
            let (event, line) = self.next()?;
            let value = self.node(event, line, depth)?;
            match key {
                Key::Merge => merge(&mut map, &mut merged, value, line)?,
                Key::Name(name) => {
                    self.budget.field(&name)?;
                    // What a merge brought may be said otherwise.
                    if map.contains_key(&name)
                        && !merged.remove(&name)
                        && self.duplicates.len() < MOST_DUPLICATES
                    {
                        let shown = cut(&name, LONGEST_PATH);
                        self.duplicates.push(format!("line {line}: key {shown:?} already set in map"));
                    }
                    map.insert(name, value);
                }
            }
        }
    }

    fn key(&mut self, event: Event<'a>, line: usize) -> Result<Key, YamlError> {
        let wrong = |why: String| YamlError::Meaning { line, why };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.scalar(text.len())?;
                let found = scalar(text, style, tag.as_deref()).map_err(wrong)?;
                if found == Scalar::Merge {
                    return Ok(Key::Merge);
                }
                if anchor > 0 {
                    self.anchors.insert(anchor, found.clone().into_json().map_err(wrong)?);
                }
                found.into_key().map(Key::Name).map_err(wrong)
            }
            Event::Alias(anchor) => match self.alias(anchor, line)? {
                Value::String(text) => Ok(Key::Name(text)),
                other @ (Value::Bool(_) | Value::Number(_)) => Ok(Key::Name(other.to_string())),
                _ => Err(wrong("a key must be a text or a number".into())),
            },
            _ => Err(wrong("a list or a map can't be a key".into())),
        }
    }
}

/// Gives `map` the fields of what stands behind `<<`, as go-yaml v2 does: over what came before. Of a list's maps the first
/// counts most.
fn merge(
    map: &mut Map<String, Value>,
    merged: &mut BTreeSet<String>,
    value: Value,
    line: usize,
) -> Result<(), YamlError> {
    let wrong =
        || YamlError::Meaning { line, why: "map merge requires map or sequence of maps as the value".into() };
    let mut put = |fields: Map<String, Value>| {
        for (name, value) in fields {
            merged.insert(name.clone());
            map.insert(name, value);
        }
    };
    match value {
        Value::Object(fields) => put(fields),
        Value::Array(list) => {
            for item in list.into_iter().rev() {
                let Value::Object(fields) = item else { return Err(wrong()) };
                put(fields);
            }
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle, tag: Option<&Tag>) -> Result<Scalar, String> {
    let Some(tag) = tag else {
        let is_plain = style == ScalarStyle::Plain;
        return Ok(if is_plain { scalar::plain(&text) } else { Scalar::Text(text.into_owned()) });
    };
    match tag.suffix_in_namespace(TAGS).as_deref() {
        Some("binary") => {
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            let bytes = STANDARD
                .decode(packed)
                .map_err(|_| "!!binary value contains invalid base64 data".to_owned())?;
            Ok(Scalar::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Some("merge") if text == "<<" => Ok(Scalar::Merge),
        Some(kind) => scalar::tagged(kind, &text),
        // Tags of others say nothing here.
        None => Ok(Scalar::Text(text.into_owned())),
    }
}
