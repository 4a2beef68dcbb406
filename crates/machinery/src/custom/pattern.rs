//! Patterns of schemas: regular expressions as Go has them (RE2), whose classes such as `\d` are ASCII.

use std::sync::OnceLock;

use regex::{Regex, RegexBuilder};

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
        let compiled = self.compiled.get_or_init(|| compile(&self.text));
        compiled.as_ref().is_some_and(|regex| regex.is_match(value))
    }
}

/// The pattern compiled; nothing if it is none.
pub fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(&ascii_classes(pattern)).size_limit(LARGEST).build().ok()
}

/// The pattern with its Perl classes written out: those of the crate are Unicode's.
fn ascii_classes(pattern: &str) -> String {
    let (mut out, mut in_class) = (String::new(), false);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('Q') => quote(&mut chars, &mut out),
                Some(class @ ('d' | 'D' | 'w' | 'W' | 's' | 'S')) => {
                    let set = match class.to_ascii_lowercase() {
                        'd' => "0-9",
                        'w' => "0-9A-Za-z_",
                        _ => "\\t\\n\\x0C\\r\\x20",
                    };
                    let negated = if class.is_ascii_uppercase() { "^" } else { "" };
                    // A set within a set is one of the crate's own ways of writing.
                    out.push_str(&format!("[{negated}{set}]"));
                }
                Some('b') if !in_class => out.push_str("(?-u:\\b)"),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            // What begins a set within a set, or joins two, is a plain character in Go.
            '[' if in_class => match chars.as_str().starts_with(':') {
                true => posix(&mut chars, &mut out),
                false => out.push_str("\\["),
            },
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '[' => {
                in_class = true;
                out.push('[');
                for first in ['^', ']'] {
                    if chars.as_str().starts_with(first) {
                        chars.next();
                        out.push_str(if first == ']' { "\\]" } else { "^" });
                    }
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            c => out.push(c),
        }
    }
    out
}

/// `\Q...\E`: as it stands.
fn quote(chars: &mut std::str::Chars<'_>, out: &mut String) {
    let rest = chars.as_str();
    let end = rest.find("\\E").unwrap_or(rest.len());
    out.push_str(&regex::escape(&rest[..end]));
    *chars = rest[end..].strip_prefix("\\E").unwrap_or("").chars();
}

/// `[:alpha:]` within a set.
fn posix(chars: &mut std::str::Chars<'_>, out: &mut String) {
    let rest = chars.as_str();
    let end = rest.find(":]").map_or(rest.len(), |at| at + 2);
    out.push('[');
    out.push_str(&rest[..end]);
    *chars = rest[end..].chars();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, yes, no) in [
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", "* * *"),
            (r"^\d$", "1", "٣"),
            (r"^[\w.-]+$", "a.b-c_1", "ä"),
            (r"^[^\s]+$", "ab", "a b"),
            (r"^\D\W$", "a-", "1-"),
            (r"^[[:alpha:]]+$", "abc", "a1"),
            (r"^[[]$", "[", "]"),
            (r"^[]a]$", "]", "b"),
            (r"^\Qa.b\E$", "a.b", "axb"),
            (r"\bfoo\b", "a foo b", "afoob"),
            (r"^\p{Lu}$", "Ä", "ä"),
            (r"(?i)^abc$", "ABC", "abd"),
        ] {
            let pattern = Pattern::new(pattern);
            assert!(pattern.matches(yes) && !pattern.matches(no), "{}", pattern.text);
        }
        assert!(compile("(").is_none() && compile("(a{1000}){1000}").is_none());
    }
}
