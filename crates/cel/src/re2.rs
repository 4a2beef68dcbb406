//! Regular expressions as Go has them (RE2), compiled by the crate `regex`: those of expressions and those of schemas.

use regex::{Regex, RegexBuilder};

/// The deepest nesting of groups and repetitions: what compiles one goes down as deep.
const DEEPEST: u32 = 100;
/// The most repetitions: RE2's `kMaxRepeat`.
const MOST_REPEATS: u32 = 1000;

/// The pattern, compiled to `largest` bytes at most.
///
/// # Errors
/// What is wrong with it, in one line.
///
/// ```
/// let digits = cel::re2::compile(r"^\d+$", 1 << 18)?;
/// // Go's classes of Perl are those of ASCII.
/// assert!(digits.is_match("12") && !digits.is_match("\u{661}\u{662}"));
/// # Ok::<(), String>(())
/// ```
pub fn compile(pattern: &str, largest: usize) -> Result<Regex, String> {
    // The error shows the pattern over several lines; the last says what is wrong.
    let why = |error: regex::Error| {
        error.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned()
    };
    let pattern = translated(pattern)?;
    RegexBuilder::new(&pattern).size_limit(largest).nest_limit(DEEPEST).build().map_err(why)
}

/// A pattern of RE2, as Go reads it, in the words of the crate `regex`: there classes of Perl and the edges of words are
/// those of Unicode, a bracket in a class begins another, a brace is always a repetition, and some escapes mean other things.
fn translated(pattern: &str) -> Result<String, String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut in_class = false;
    // Each search stops at the first character that can't belong to what it looks for: a pattern of a megabyte is read once.
    let last_named = pattern.rfind(":]");
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let behind = &rest[c.len_utf8()..];
        rest = behind;
        match c {
            '\\' => {
                let Some(escaped) = behind.chars().next() else {
                    return Err(
                        "error parsing regexp: trailing backslash at end of expression: ``".to_owned()
                    );
                };
                rest = &behind[escaped.len_utf8()..];
                if escaped == 'Q' && !in_class {
                    let (literal, behind) = rest.split_once("\\E").unwrap_or((rest, ""));
                    out.push_str(&regex::escape(literal));
                    rest = behind;
                } else {
                    escape(escaped, in_class, &mut out)?;
                    // `\p{Lu}`, `\x{1F600}`: these braces are no repetition.
                    if matches!(escaped, 'p' | 'P' | 'x')
                        && let Some((name, behind)) = rest.strip_prefix('{').and_then(braced)
                    {
                        out.push_str(&format!("{{{name}}}"));
                        rest = behind;
                    }
                }
            }
            '[' if in_class => match behind.strip_prefix(':') {
                Some(name) => match name.find([':', '[', ']']).filter(|end| name[*end..].starts_with(":]")) {
                    Some(end) => {
                        out.push_str(&format!("[{}", &behind[..end + 3]));
                        rest = &behind[end + 3..];
                    }
                    // What reaches to a later end is a name as well, of no class.
                    None if last_named >= Some(pattern.len() - name.len()) => {
                        return Err("error parsing regexp: invalid character class range".to_owned());
                    }
                    None => out.push_str("\\["),
                },
                None => out.push_str("\\["),
            },
            '&' | '~' if in_class => out.extend(['\\', c]),
            ']' if in_class => {
                in_class = false;
                out.push(c);
            }
            '[' => {
                in_class = true;
                out.push(c);
                let negated = behind.strip_prefix('^');
                out.push_str(if negated.is_some() { "^" } else { "" });
                rest = negated.unwrap_or(behind);
                // Directly behind the bracket it is one of the class.
                if let Some(behind) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = behind;
                }
            }
            '{' if !in_class => match repetition(behind) {
                None => out.push_str("\\{"),
                Some(most) if most > MOST_REPEATS => {
                    return Err("error parsing regexp: invalid repeat count".to_owned());
                }
                Some(_) => out.push('{'),
            },
            '(' if !in_class && behind.starts_with('?') => {
                let flags = behind[1..].find(|c: char| !c.is_ascii_alphabetic() && c != '-').unwrap_or(0);
                let flags = &behind[1..1 + flags];
                let named = flags == "P" || behind[1..].starts_with('<');
                if !named && !flags.chars().all(|flag| "imsU-".contains(flag)) {
                    return Err("error parsing regexp: invalid or unsupported Perl syntax".to_owned());
                }
                out.push('(');
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn escape(escaped: char, in_class: bool, out: &mut String) -> Result<(), String> {
    let plain = match (escaped, in_class) {
        ('d', false) => "[0-9]",
        ('d', true) => "0-9",
        ('D', _) => "[^0-9]",
        ('s', false) => "[\\t\\n\\f\\r ]",
        ('s', true) => "\\t\\n\\f\\r ",
        ('S', _) => "[^\\t\\n\\f\\r ]",
        ('w', false) => "[0-9A-Za-z_]",
        ('w', true) => "0-9A-Za-z_",
        ('W', _) => "[^0-9A-Za-z_]",
        ('b', false) => "(?-u:\\b)",
        ('B', false) => "(?-u:\\B)",
        ('<' | '>', _) => {
            out.push(escaped);
            return Ok(());
        }
        ('b' | 'B' | 'C' | 'G' | 'Z' | 'u' | 'U' | 'E' | 'R' | 'X' | 'K' | 'h' | 'H' | 'N', _) => {
            return Err(format!("error parsing regexp: invalid escape sequence: `\\{escaped}`"));
        }
        _ => {
            out.extend(['\\', escaped]);
            return Ok(());
        }
    };
    out.push_str(plain);
    Ok(())
}

/// What stands before the next brace, which must be a closing one, and what behind it.
fn braced(text: &str) -> Option<(&str, &str)> {
    let end = text.find(['{', '}'])?;
    text[end..].strip_prefix('}').map(|behind| (&text[..end], behind))
}

/// The largest number of a repetition such as `{2,5}`, behind its brace; nothing if it is none, and only text.
fn repetition(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ',')?;
    let counts = text[end..].starts_with('}').then_some(&text[..end])?;
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().unwrap_or(u32::MAX));
    let least = number(least).filter(|_| !least.is_empty())?;
    if most.is_empty() { Some(least) } else { number(most).map(|most| most.max(least)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_re2() {
        for (pattern, fits, other) in [
            (r"^\d+$", "12", "\u{661}\u{662}"),
            (r"^\w+$", "a_1", "\u{e9}"),
            (r"^[\w.-]+$", "a.b-c", "\u{e9}"),
            (r"^[^\s]+$", "a\u{a0}b", "a b"),
            (r"^\bab\b", "ab\u{e9}", "abc"),
            ("^[[]$", "[", "]"),
            ("^[]a]$", "]", "["),
            ("^[a&&b]+$", "a&b", "c"),
            ("^[[:alpha:]]+$", "ab", "1"),
            ("^[[:a]+$", "[:a", "b"),
            ("^{a}$", "{a}", "a"),
            ("^a{1,{1}$", "a{1,", "a"),
            ("^a{2,3}$", "aa", "a"),
            (r"^\Qa.b\E+$", "a.bb", "axb"),
            (r"^\<a\>$", "<a>", "a"),
            ("(?i)^ABC$", "abc", "abd"),
            ("^(?P<x>a)(?:b)$", "ab", "a"),
            (r"^\D\W$", "a-", "1-"),
            (r"^\p{Lu}\pL$", "\u{c4}b", "\u{e4}b"),
            (r"^\x{1F600}[\x{41}-\x{43}]$", "\u{1F600}B", "\u{1F600}D"),
            (r"^(\d+|\*)(/\d+)?(\s+(\d+|\*)(/\d+)?){4}$", "* * * * */5", "* * *"),
        ] {
            let regex = compile(pattern, 1 << 18).unwrap();
            assert!(regex.is_match(fits) && !regex.is_match(other), "{pattern}");
        }
        for pattern in [
            "(",
            "[",
            "a{1001}",
            "(a{1000}){1000}",
            r"\u{61}",
            r"\p{Lu",
            r"\p{L{u}",
            "[[:a]b:]",
            "(?x)a",
            "(?=a)",
            "\\",
            "*",
        ] {
            assert!(compile(pattern, 1 << 18).is_err(), "{pattern}");
        }
    }
}
