//! Patterns of schemas: regular expressions as Go has them.

use std::sync::OnceLock;

use regex::Regex;

/// A compiled pattern takes no more memory than that, in bytes: a schema can have thousands.
const LARGEST: usize = 1 << 20;

/// A pattern, compiled when it is first needed.
#[derive(Debug)]
pub(super) struct Pattern {
    pub text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Pattern {
    pub fn new(text: &str) -> Self {
        Pattern { text: text.to_owned(), compiled: OnceLock::new() }
    }

    /// Whether it is found in a value. A pattern that can't be compiled is found in none: nothing is known of it.
    pub fn matches(&self, value: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| compile(&self.text).ok());
        compiled.as_ref().is_some_and(|regex| regex.is_match(value))
    }
}

/// The pattern compiled.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn compile(pattern: &str) -> Result<Regex, String> {
    cel::re2::compile(pattern, LARGEST)
}
