//! Bytes that somebody sent, as values: JSON and YAML 1.1, read with one bound for depth, work and memory, and YAML
//! written again. Whatever of ours reads YAML reads it here.

mod budget;
mod json;
mod yaml;

pub use budget::{Budget, DEEPEST, Exceeded, MOST_MEMORY};
pub use json::{JsonError, from_json, in_order_of, json_and_duplicates};
pub use yaml::{Document, YamlError, documents, from_yaml, to_yaml, yaml_and_duplicates};

/// The most duplicate keys of one body that are reported.
const MOST_DUPLICATES: usize = 100;
/// How much of a field's path is reported, in bytes: below a key of a megabyte each path is as long.
pub const LONGEST_PATH: usize = 1000;

/// A text cut down to `most` bytes, at a character's end, with a sign that it was.
pub fn cut(text: &str, most: usize) -> std::borrow::Cow<'_, str> {
    if text.len() <= most {
        return text.into();
    }
    let end = (0..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", &text[..end]).into()
}
