//! URLs, as Go's `net/url` reads those of requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Answer, no_overload};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Key, Value};

/// A URL with a scheme, or an absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    path: String,
    query: String,
}

impl Url {
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::Failed(format!("URL parse error during conversion from string: parse {text:?}"));
        if text.is_empty() || text.bytes().any(|b| b <= b' ' || b == 0x7f) {
            return Err(wrong());
        }
        let (scheme, rest) = match text.find(':') {
            Some(at) if !text[..at].contains('/') => {
                let scheme = &text[..at];
                let fits = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                    && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'));
                if !fits {
                    return Err(wrong());
                }
                (scheme.to_ascii_lowercase(), &text[at + 1..])
            }
            _ => (String::new(), text),
        };
        if !rest.starts_with('/') {
            return Err(wrong());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//").filter(|_| !scheme.is_empty()) {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
        if !is_host(host) || !is_escaped(path) {
            return Err(wrong());
        }
        Ok(Url { scheme, host: host.to_owned(), path: path.to_owned(), query: query.to_owned() })
    }

    pub(super) fn part<'a>(&self, name: &str, budget: &mut Budget) -> Answer<'a> {
        let (hostname, port) = split_port(&self.host);
        let text = match name {
            "getScheme" => &self.scheme,
            "getHost" => &self.host,
            "getHostname" => hostname.trim_start_matches('[').trim_end_matches(']'),
            "getPort" => port,
            "getEscapedPath" => &self.path,
            "getQuery" => return self.queries(budget),
            _ => return no_overload(),
        };
        Ok(text.into())
    }

    fn queries<'a>(&self, budget: &mut Budget) -> Answer<'a> {
        budget.charge_bytes(self.query.len())?;
        let mut map: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty()) {
            budget.charge(1)?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) {
                map.entry(Key::String(Arc::from(key))).or_default().push(value.into());
            }
        }
        Ok(Value::map(map.into_iter().map(|(key, values)| (key, Value::list(values))).collect()))
    }
}

fn split_port(host: &str) -> (&str, &str) {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') && (!name.contains(':') || name.ends_with(']')) => {
            (name, port)
        }
        _ => (host, ""),
    }
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let inner = name.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or("["));
    let fits = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            !name.contains([':', '[', ']', '<', '>', '"', '\\', '^', '`', '{', '|', '}']) && is_escaped(name)
        }
    };
    fits && port.bytes().all(|b| b.is_ascii_digit())
}

/// Whether each `%` has its two digits.
fn is_escaped(text: &str) -> bool {
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).filter(|at| bytes[*at] == b'%').all(|at| digit(at + 1) && digit(at + 2))
}

fn unescaped(text: &str) -> Option<String> {
    if !is_escaped(text) {
        return None;
    }
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                let digits = std::str::from_utf8(bytes.get(at + 1..at + 3)?).ok()?;
                out.push(u8::from_str_radix(digits, 16).ok()?);
                at += 2;
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}
