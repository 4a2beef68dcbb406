//! Why bytes are no JSON, in the words of Go's scanner (`encoding/json`), which upstream's answers have.

/// The most objects and lists within each other, as there.
const DEEPEST: usize = 10_000;

/// What the scanner says about a body; nothing if it finds no fault.
pub(crate) fn fault(body: &[u8]) -> Option<String> {
    Scanner { body, at: 0, open: Vec::new() }.run().err()
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    /// The closing brackets that are still to come.
    open: Vec<u8>,
}

type Found = Result<(), String>;

/// What stands next.
enum Next {
    Value,
    Key,
    /// What may follow a value.
    Behind,
}

impl Scanner<'_> {
    fn run(mut self) -> Found {
        let mut next = Next::Value;
        loop {
            next = match (next, self.next_visible()) {
                (Next::Value, Some(byte @ (b'{' | b'['))) => self.opened(byte)?,
                (Next::Value, Some(byte)) => {
                    match byte {
                        b'"' => self.string()?,
                        b'-' | b'0'..=b'9' => self.number()?,
                        b't' => self.literal("true")?,
                        b'f' => self.literal("false")?,
                        b'n' => self.literal("null")?,
                        _ => return self.wrong("looking for beginning of value"),
                    }
                    Next::Behind
                }
                (Next::Key, Some(b'"')) => {
                    self.string()?;
                    self.next_visible();
                    self.pass(|byte| byte == b':', "after object key")?;
                    Next::Value
                }
                (Next::Key, _) => return self.wrong("looking for beginning of object key string"),
                (Next::Behind, None) if self.open.is_empty() => return Ok(()),
                (Next::Behind, Some(byte)) if self.open.last() == Some(&byte) => {
                    self.at += 1;
                    self.open.pop();
                    Next::Behind
                }
                (Next::Behind, Some(b',')) if !self.open.is_empty() => {
                    self.at += 1;
                    if self.open.last() == Some(&b'}') { Next::Key } else { Next::Value }
                }
                (Next::Behind, _) => {
                    return self.wrong(match self.open.last() {
                        None => "after top-level value",
                        Some(b'}') => "after object key:value pair",
                        Some(_) => "after array element",
                    });
                }
                (Next::Value, None) => return self.wrong(""),
            };
        }
    }

    /// What stands next behind an opening bracket.
    fn opened(&mut self, bracket: u8) -> Result<Next, String> {
        self.at += 1;
        let (close, next) = if bracket == b'{' { (b'}', Next::Key) } else { (b']', Next::Value) };
        self.open.push(close);
        if self.open.len() > DEEPEST {
            return Err("exceeded max depth".to_owned());
        }
        Ok(if self.next_visible() == Some(close) { Next::Behind } else { next })
    }

    /// The next byte that is no blank.
    fn next_visible(&mut self) -> Option<u8> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        self.at += self.body[self.at..].iter().take_while(|byte| blank(byte)).count();
        self.peek()
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn wrong(&self, context: &str) -> Found {
        let Some(byte) = self.peek() else { return Err("unexpected end of JSON input".to_owned()) };
        let shown = match byte {
            b'\'' => "\\'".to_owned(),
            b'"' => "\"".to_owned(),
            b'\\' => "\\\\".to_owned(),
            b'\n' => "\\n".to_owned(),
            b'\r' => "\\r".to_owned(),
            b'\t' => "\\t".to_owned(),
            0x07 => "\\a".to_owned(),
            0x08 => "\\b".to_owned(),
            0x0b => "\\v".to_owned(),
            0x0c => "\\f".to_owned(),
            0..0x20 | 0x7f => format!("\\x{byte:02x}"),
            0x80..0xa0 | 0xad => format!("\\u{byte:04x}"),
            byte => char::from(byte).to_string(),
        };
        Err(format!("invalid character '{shown}' {context}"))
    }

    /// Passes what one of these bytes is.
    fn pass(&mut self, fits: impl Fn(u8) -> bool, context: &str) -> Found {
        if !self.peek().is_some_and(fits) {
            return self.wrong(context);
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Found {
        self.at += 1;
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    let is_unicode = self.peek() == Some(b'u');
                    self.pass(|byte| b"bfnrt\\/\"u".contains(&byte), "in string escape code")?;
                    for _ in 0..if is_unicode { 4 } else { 0 } {
                        self.pass(|byte| byte.is_ascii_hexdigit(), "in \\u hexadecimal character escape")?;
                    }
                }
                Some(0x20..) => self.at += 1,
                _ => return self.wrong("in string literal"),
            }
        }
    }

    fn digits(&mut self) {
        self.at += self.body[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }

    fn number(&mut self) -> Found {
        self.at += usize::from(self.peek() == Some(b'-'));
        let is_zero = self.peek() == Some(b'0');
        self.pass(|byte| byte.is_ascii_digit(), "in numeric literal")?;
        if !is_zero {
            self.digits();
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.pass(|byte| byte.is_ascii_digit(), "after decimal point in numeric literal")?;
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.pass(|byte| byte.is_ascii_digit(), "in exponent of numeric literal")?;
            self.digits();
        }
        Ok(())
    }

    fn literal(&mut self, word: &str) -> Found {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                return self.wrong(&format!("in literal {word} (expecting '{}')", char::from(expected)));
            }
            self.at += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_as_go_does() {
        for (body, why) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":1", "unexpected end of JSON input"),
            ("hello", "invalid character 'h' looking for beginning of value"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 \"b\"}", "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{}]", "invalid character ']' after top-level value"),
            ("tru?", "invalid character '?' in literal true (expecting 'e')"),
            ("\"a\nb\"", "invalid character '\\n' in string literal"),
            ("\"\\x\"", "invalid character 'x' in string escape code"),
            ("\"\\u12g4\"", "invalid character 'g' in \\u hexadecimal character escape"),
            ("-a", "invalid character 'a' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1e+x", "invalid character 'x' in exponent of numeric literal"),
            ("\u{1}", "invalid character '\\x01' looking for beginning of value"),
            ("é", "invalid character 'Ã' looking for beginning of value"),
        ] {
            assert_eq!(fault(body.as_bytes()).as_deref(), Some(why), "{body:?}");
        }
        for body in ["{}", "[]", " [ { \"a\" : [ ] , \"b\" : -0.5e-3 } , null , true , \"\\u00e9\\n\" ] "] {
            assert_eq!(fault(body.as_bytes()), None, "{body}");
        }
        assert_eq!(fault("[".repeat(1_000_000).as_bytes()).as_deref(), Some("exceeded max depth"));
    }
}
