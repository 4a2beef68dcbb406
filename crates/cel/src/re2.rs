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
///
/// # Errors
/// What is wrong with it, in the words of Go's `regexp/syntax`.
fn translated(pattern: &str) -> Result<String, String> {
    let (out, last_named) = (String::with_capacity(pattern.len() + 8), pattern.rfind(":]"));
    let mut reading = Reading { pattern, rest: pattern, out, open: 0, last: Last::Nothing, last_named };
    reading.run().map_err(|why| format!("error parsing regexp: {why}"))?;
    Ok(reading.out)
}

/// What stands before the next part, for one that repeats it.
#[derive(Clone, Copy)]
enum Last {
    Nothing,
    /// Something that can be repeated.
    Operand,
    /// What is repeated already, by the repetition that begins there.
    Repeated(usize),
}

struct Reading<'a> {
    pattern: &'a str,
    rest: &'a str,
    out: String,
    /// The groups that are open.
    open: usize,
    last: Last,
    /// Where the last name of a class ends. Each search stops at the first character that can't belong to what it looks for: a
    /// pattern of a megabyte is read once.
    last_named: Option<usize>,
}

impl<'a> Reading<'a> {
    fn at(&self) -> usize {
        self.pattern.len() - self.rest.len()
    }

    /// What stands from a place on to where the reading is.
    fn since(&self, at: usize) -> &'a str {
        &self.pattern[at..self.at()]
    }

    fn take(&mut self) -> Option<char> {
        let c = self.rest.chars().next()?;
        self.rest = &self.rest[c.len_utf8()..];
        Some(c)
    }

    fn accept(&mut self, sign: &str) -> bool {
        let behind = self.rest.strip_prefix(sign);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn run(&mut self) -> Result<(), String> {
        loop {
            let at = self.at();
            let Some(c) = self.take() else { break };
            match c {
                '\\' => {
                    let has_operand = self.escaped(false)?;
                    if has_operand {
                        self.last = Last::Operand;
                    }
                }
                '[' => {
                    self.class(at)?;
                    self.last = Last::Operand;
                }
                '{' => match repetition(self.rest) {
                    None => {
                        self.out.push_str("\\{");
                        self.last = Last::Operand;
                    }
                    Some((most, length)) => {
                        self.rest = &self.rest[length..];
                        if most > MOST_REPEATS {
                            return Err(format!("invalid repeat count: `{}`", self.since(at)));
                        }
                        self.repeated(at)?;
                    }
                },
                '*' | '+' | '?' => self.repeated(at)?,
                '(' => self.group(at)?,
                ')' if self.open == 0 => return Err(format!("unexpected ): `{}`", self.pattern)),
                ')' => {
                    self.open -= 1;
                    self.out.push(c);
                    self.last = Last::Operand;
                }
                '|' => {
                    self.out.push(c);
                    self.last = Last::Nothing;
                }
                c => {
                    self.out.push(c);
                    self.last = Last::Operand;
                }
            }
        }
        match self.open {
            0 => Ok(()),
            _ => Err(format!("missing closing ): `{}`", self.pattern)),
        }
    }

    /// A repetition that begins at a place, of what stands there.
    fn repeated(&mut self, at: usize) -> Result<(), String> {
        self.accept("?");
        let shown = self.since(at);
        match self.last {
            Last::Nothing => return Err(format!("missing argument to repetition operator: `{shown}`")),
            Last::Repeated(first) => {
                return Err(format!("invalid nested repetition operator: `{}`", self.since(first)));
            }
            Last::Operand => self.last = Last::Repeated(at),
        }
        self.out.push_str(shown);
        Ok(())
    }

    /// A group, behind its bracket; or flags, which are none.
    fn group(&mut self, at: usize) -> Result<(), String> {
        self.out.push('(');
        if let Some(asked) = self.rest.strip_prefix('?') {
            let flags = asked.find(|c: char| !c.is_ascii_alphabetic() && c != '-').unwrap_or(0);
            let (flags, behind) = asked.split_at(flags);
            let named = flags == "P" || asked.starts_with('<');
            let odd = flags.find(|flag| !"imsU-".contains(flag)).filter(|_| !named);
            let odd = odd.or(behind.starts_with(['=', '!', '#']).then_some(flags.len()));
            if let Some(odd) = odd {
                self.rest = &asked[odd + 1..];
                return Err(format!("invalid or unsupported Perl syntax: `{}`", self.since(at)));
            }
            if behind.starts_with(')') && !named {
                self.out.push_str(&format!("?{flags})"));
                self.rest = &behind[1..];
                if let Last::Repeated(_) = self.last {
                    self.last = Last::Operand;
                }
                return Ok(());
            }
            // What the group is called, or its flags, is no part of it.
            let end = if named { asked.find('>').map_or(0, |end| end + 1) } else { flags.len() + 1 };
            let end = end.min(asked.len());
            self.out.push('?');
            self.out.push_str(&asked[..end]);
            self.rest = &asked[end..];
        }
        self.open += 1;
        self.last = Last::Nothing;
        Ok(())
    }

    /// What stands behind a backslash; whether that is something.
    fn escaped(&mut self, in_class: bool) -> Result<bool, String> {
        let Some(escaped) = self.take() else {
            return Err("trailing backslash at end of expression: ``".to_owned());
        };
        if escaped == 'Q' && !in_class {
            let (literal, behind) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
            self.out.push_str(&regex::escape(literal));
            self.rest = behind;
            return Ok(!literal.is_empty());
        }
        escape(escaped, in_class, &mut self.out)?;
        // `\p{Lu}`, `\x{1F600}`: these braces are no repetition.
        if matches!(escaped, 'p' | 'P' | 'x')
            && let Some((name, behind)) = self.rest.strip_prefix('{').and_then(braced)
        {
            self.out.push_str(&format!("{{{name}}}"));
            self.rest = behind;
        }
        Ok(true)
    }

    /// A class of characters, which begins at a place, behind its bracket.
    fn class(&mut self, at: usize) -> Result<(), String> {
        self.out.push('[');
        if self.accept("^") {
            self.out.push('^');
        }
        // Directly behind the bracket it is one of the class.
        if self.accept("]") {
            self.out.push_str("\\]");
        }
        while let Some(c) = self.take() {
            match c {
                '\\' => _ = self.escaped(true)?,
                '[' => match self.rest.strip_prefix(':') {
                    Some(name) => {
                        let end = name.find([':', '[', ']']).filter(|end| name[*end..].starts_with(":]"));
                        match end {
                            Some(end) => {
                                self.out.push_str(&format!("[{}", &self.rest[..end + 3]));
                                self.rest = &self.rest[end + 3..];
                            }
                            // What reaches to a later end is a name as well, of no class.
                            None if self.last_named >= Some(self.pattern.len() - name.len()) => {
                                return Err("invalid character class range".to_owned());
                            }
                            None => self.out.push_str("\\["),
                        }
                    }
                    None => self.out.push_str("\\["),
                },
                '&' | '~' => self.out.extend(['\\', c]),
                ']' => {
                    self.out.push(c);
                    return Ok(());
                }
                c => self.out.push(c),
            }
        }
        Err(format!("missing closing ]: `{}`", &self.pattern[at..]))
    }
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
        (other, _) if other.is_ascii_alphanumeric() && !"afnrtvxpPAz".contains(other) => {
            return Err(format!("invalid escape sequence: `\\{escaped}`"));
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

/// The largest number of a repetition such as `{2,5}`, and how long it is behind its brace; nothing if it is none, and only text.
fn repetition(text: &str) -> Option<(u32, usize)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != ',')?;
    let counts = text[end..].starts_with('}').then_some(&text[..end])?;
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let number =
        |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().unwrap_or(u32::MAX));
    let least = number(least).filter(|_| !least.is_empty())?;
    let most = if most.is_empty() { least } else { number(most)?.max(least) };
    Some((most, end + 1))
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
            "a**",
            "a+{2}",
            "(|*a)",
        ] {
            assert!(compile(pattern, 1 << 18).is_err(), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_told_in_gos_words() {
        for (pattern, why) in [
            ("a(b", "missing closing ): `a(b`"),
            ("a)b", "unexpected ): `a)b`"),
            ("a[bc", "missing closing ]: `[bc`"),
            ("\\", "trailing backslash at end of expression: ``"),
            ("*", "missing argument to repetition operator: `*`"),
            ("a|+?", "missing argument to repetition operator: `+?`"),
            ("{2}", "missing argument to repetition operator: `{2}`"),
            ("a**", "invalid nested repetition operator: `**`"),
            ("a*?{2}", "invalid nested repetition operator: `*?{2}`"),
            ("a{1001}", "invalid repeat count: `{1001}`"),
            ("x(?=a)", "invalid or unsupported Perl syntax: `(?=`"),
            (r"\y", "invalid escape sequence: `\\y`"),
            (r"(a)\1", "invalid escape sequence: `\\1`"),
            ("(?ix)a", "invalid or unsupported Perl syntax: `(?ix`"),
        ] {
            let told = compile(pattern, 1 << 18).unwrap_err();
            assert_eq!(told, format!("error parsing regexp: {why}"), "{pattern}");
        }
        for pattern in ["^*", "(?P<n>a)+", "(?:)*", "a{,2}", "{", "a{2}?"] {
            assert!(compile(pattern, 1 << 18).is_ok(), "{pattern}");
        }
    }
}
