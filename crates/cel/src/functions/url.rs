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
        Url::read(text, true).ok_or_else(wrong)?;
        // A URL of a request has no fragment, so what it says of one is dropped after it is checked.
        Url::read(text.split_once('#').map_or(text, |(url, _)| url), false).ok_or_else(wrong)
    }

    /// A URL; of a request, it begins with a scheme or is a path.
    fn read(text: &str, of_request: bool) -> Option<Self> {
        if (of_request && text.is_empty()) || text.bytes().any(|b| b < b' ' || b == 0x7f) {
            return None;
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (scheme, query) = (scheme.to_ascii_lowercase(), query.to_owned());
        if !rest.starts_with('/') {
            // A scheme with something of its own behind it, such as `mailto:a@b`.
            let fits = !scheme.is_empty() || !of_request;
            return fits.then(|| Url { scheme, host: String::new(), path: String::new(), query });
        }
        let has_host = !scheme.is_empty() || (!of_request && !rest.starts_with("///"));
        let (authority, path) = match rest.strip_prefix("//").filter(|_| has_host) {
            Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
            None => ("", rest),
        };
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let fits = is_user(user) && is_host(host) && is_escaped(path);
        fits.then(|| Url { scheme, host: host.to_owned(), path: path.to_owned(), query })
    }

    pub(super) fn part<'a>(&self, name: &str, budget: &mut Budget) -> Answer<'a> {
        let (hostname, port) = split_port(&self.host);
        let text = match name {
            "getScheme" => &self.scheme,
            "getHost" => &self.host,
            "getHostname" => hostname.trim_start_matches('[').trim_end_matches(']'),
            "getPort" => port,
            "getEscapedPath" => return Ok(escaped(&self.path).into()),
            "getQuery" => return self.queries(budget),
            _ => return no_overload(),
        };
        Ok(text.into())
    }

    fn queries<'a>(&self, budget: &mut Budget) -> Answer<'a> {
        budget.charge_bytes(self.query.len())?;
        let mut map: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
        for pair in self.query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            budget.charge(1)?;
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if let (Some(key), Some(value)) = (unescaped(key, true), unescaped(value, true)) {
                let key = String::from_utf8_lossy(&key);
                let value = String::from_utf8_lossy(&value).into_owned();
                map.entry(Key::String(Arc::from(&*key))).or_default().push(value.into());
            }
        }
        Ok(Value::map(map.into_iter().map(|(key, values)| (key, Value::list(values))).collect()))
    }
}

/// The scheme and what is behind it; nothing where a colon has none before it.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '+' | '-' | '.'));
    match end {
        Some(0) if text.starts_with(':') => None,
        Some(at) if text[at..].starts_with(':') && text.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Some((&text[..at], &text[at + 1..]))
        }
        _ => Some(("", text)),
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

fn is_user(user: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    user.chars().all(fits) && is_escaped(user)
}

fn is_host(host: &str) -> bool {
    let (name, port) = split_port(host);
    let inner = name.strip_prefix('[').map(|rest| rest.strip_suffix(']').unwrap_or("["));
    let fits = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            let plain =
                |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-_.~!$&'()*+,;=<>\"%".contains(c);
            // Nothing of ASCII is escaped in a host.
            let escapes = name.match_indices('%').all(|(at, _)| {
                let digits = name.get(at + 1..at + 3).unwrap_or_default();
                digits == "25" || u8::from_str_radix(digits, 16).is_ok_and(|byte| byte >= 0x80)
            });
            name.chars().all(plain) && escapes
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

/// A path as it is written; where it has what no path may have, with all of that escaped.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte);
    if path.bytes().all(|byte| plain(byte) || b"!'()*[]%".contains(&byte)) {
        return path.to_owned();
    }
    let mut out = String::new();
    for byte in unescaped(path, false).unwrap_or_default() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The bytes of what is escaped; in a query, a plus is a space.
fn unescaped(text: &str, in_query: bool) -> Option<Vec<u8>> {
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
            b'+' if in_query => out.push(b' '),
            byte => out.push(byte),
        }
        at += 1;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_go_reads_those_of_requests() {
        for (text, scheme, host, path, query) in [
            ("https://user@example.com:8443/a/b?x=1#f", "https", "example.com:8443", "/a/b", "x=1"),
            ("/path with/\u{e9}?q=a b", "", "", "/path%20with/%C3%A9", "q=a b"),
            ("/a%2Fb", "", "", "/a%2Fb", ""),
            ("mailto:a@b", "mailto", "", "", ""),
            ("HTTP://[::1]:80", "http", "[::1]:80", "", ""),
        ] {
            let url = Url::parse(text).unwrap();
            let found = (url.scheme.as_str(), url.host.as_str(), escaped(&url.path), url.query.as_str());
            assert_eq!(found, (scheme, host, path.to_owned(), query), "{text}");
        }
        for text in [
            "",
            "not a url",
            "x/y",
            "https://a b/",
            "https://h#f",
            "http://h:p/",
            ":/",
            "2026:/a",
            "/%zz",
            "/\n",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
