//! The words of an expression.

use crate::error::Fault;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    /// A name, and whether it stands in backticks.
    Ident(String, bool),
    Int(i64),
    /// 2^63, which is a number only behind a minus.
    IntMinimum,
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
    /// A sign: one or two characters.
    Sign(&'static str),
    End,
}

/// Longest first.
const SIGNS: [&str; 25] = [
    "&&", "||", "==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "!", "?", ":", ",", ".", "(", ")",
    "[", "]", "{", "}", "=",
];

/// The words of `text` with their places.
pub(crate) fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Fault> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_space();
        let at = lexer.at;
        let token = lexer.next()?;
        let done = token == Token::End;
        tokens.push((at, token));
        if done {
            return Ok(tokens);
        }
    }
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn fault(&self, at: usize, why: impl std::fmt::Display) -> Fault {
        Fault { at, message: format!("Syntax error: {why}") }
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches([' ', '\t', '\r', '\n', '\u{c}']);
            self.at += rest.len() - trimmed.len();
            if !self.rest().starts_with("//") {
                return;
            }
            self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        }
    }

    fn next(&mut self) -> Result<Token, Fault> {
        let Some(first) = self.peek() else { return Ok(Token::End) };
        let rest = self.rest();
        if let Some(prefix) = string_prefix(rest) {
            return self.string(prefix);
        }
        if first.is_ascii_digit() || (first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit())) {
            return self.number();
        }
        if first == '_' || first.is_ascii_alphabetic() {
            let length = rest.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
            let name = rest[..length].to_owned();
            self.at += length;
            return Ok(Token::Ident(name, false));
        }
        if first == '`' {
            let body = &rest[1..];
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '/' | ' ');
            return match body.find('`') {
                Some(end) if end > 0 && body[..end].chars().all(fits) => {
                    let name = body[..end].to_owned();
                    self.at += end + 2;
                    Ok(Token::Ident(name, true))
                }
                _ => Err(self.fault(self.at, "token recognition error at: '`'")),
            };
        }
        match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
            Some(sign) => {
                self.at += sign.len();
                Ok(Token::Sign(sign))
            }
            None => Err(self.fault(self.at, format_args!("token recognition error at: '{first}'"))),
        }
    }

    fn number(&mut self) -> Result<Token, Fault> {
        let (at, rest) = (self.at, self.rest());
        if let Some(hex) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let length = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
            let value = u64::from_str_radix(&hex[..length], 16);
            let value = value.map_err(|_| self.fault(at, "invalid int literal"))?;
            let unsigned = hex[length..].starts_with(['u', 'U']);
            self.at += 2 + length + usize::from(unsigned);
            return self.whole(at, value, unsigned);
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let mut length = digits(rest);
        let mut is_double = false;
        if let Some(fraction) = rest[length..].strip_prefix('.')
            && digits(fraction) > 0
        {
            length += 1 + digits(fraction);
            is_double = true;
        }
        if let Some(exponent) = rest[length..].strip_prefix(['e', 'E']) {
            let sign = usize::from(exponent.starts_with(['+', '-']));
            let count = digits(&exponent[sign..]);
            if count > 0 {
                length += 1 + sign + count;
                is_double = true;
            }
        }
        let number = &rest[..length];
        if is_double {
            let value = number.parse().map_err(|_| self.fault(at, "invalid double literal"))?;
            self.at += length;
            return Ok(Token::Double(value));
        }
        let value = number.parse::<u64>().map_err(|_| self.fault(at, "invalid int literal"))?;
        let unsigned = rest[length..].starts_with(['u', 'U']);
        self.at += length + usize::from(unsigned);
        self.whole(at, value, unsigned)
    }

    fn whole(&self, at: usize, value: u64, unsigned: bool) -> Result<Token, Fault> {
        match (unsigned, i64::try_from(value)) {
            (true, _) => Ok(Token::Uint(value)),
            (false, Ok(value)) => Ok(Token::Int(value)),
            (false, Err(_)) if value == i64::MAX as u64 + 1 => Ok(Token::IntMinimum),
            (false, Err(_)) => Err(self.fault(at, "invalid int literal")),
        }
    }

    fn string(&mut self, prefix: Prefix) -> Result<Token, Fault> {
        let at = self.at;
        let unterminated = || self.fault(at, "a string without an end");
        let body_at = at + prefix.length;
        let mut bytes = Vec::new();
        let mut rest = &self.text[body_at..];
        loop {
            if let Some(behind) = rest.strip_prefix(prefix.quote) {
                self.at = self.text.len() - behind.len();
                break;
            }
            let Some(c) = rest.chars().next() else { return Err(unterminated()) };
            if prefix.quote.len() == 1 && (c == '\n' || c == '\r') {
                return Err(unterminated());
            }
            if c == '\\' && !prefix.raw {
                let invalid = || self.fault(self.text.len() - rest.len(), "invalid escape in a string");
                let (length, escaped) = escape(rest, prefix.bytes).ok_or_else(invalid)?;
                match escaped {
                    Escaped::Byte(byte) => bytes.push(byte),
                    Escaped::Char(c) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
                }
                rest = &rest[length..];
                continue;
            }
            bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &rest[c.len_utf8()..];
        }
        if prefix.bytes {
            return Ok(Token::Bytes(bytes));
        }
        String::from_utf8(bytes).map(Token::String).map_err(|_| self.fault(at, "a string that is no UTF-8"))
    }
}

#[derive(Clone, Copy)]
struct Prefix {
    length: usize,
    quote: &'static str,
    raw: bool,
    bytes: bool,
}

/// How a string begins, if one begins here.
fn string_prefix(text: &str) -> Option<Prefix> {
    let letters = text.find(|c: char| !matches!(c, 'r' | 'R' | 'b' | 'B')).filter(|n| *n <= 2)?;
    let (head, rest) = text.split_at(letters);
    let raw = head.contains(['r', 'R']);
    let bytes = head.contains(['b', 'B']);
    if letters == 2 && !(raw && bytes) {
        return None;
    }
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote))?;
    Some(Prefix { length: letters + quote.len(), quote, raw, bytes })
}

enum Escaped {
    Byte(u8),
    Char(char),
}

/// What an escape stands for, and how long it is.
fn escape(text: &str, bytes: bool) -> Option<(usize, Escaped)> {
    let kind = text[1..].chars().next()?;
    let simple = match kind {
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{b}',
        '\\' | '\'' | '"' | '`' | '?' => kind,
        _ => '\0',
    };
    if simple != '\0' {
        return Some((2, Escaped::Char(simple)));
    }
    let (from, digits, radix) = match kind {
        'x' | 'X' => (2, 2, 16),
        'u' if !bytes => (2, 4, 16),
        'U' if !bytes => (2, 8, 16),
        '0'..='3' => (1, 3, 8),
        _ => return None,
    };
    let text = text.get(from..from + digits).filter(|text| text.chars().all(|c| c.is_digit(radix)))?;
    let value = u32::from_str_radix(text, radix).ok()?;
    let escaped = match bytes {
        true => Escaped::Byte(u8::try_from(value).ok()?),
        false => Escaped::Char(char::from_u32(value)?),
    };
    Some((from + digits, escaped))
}
