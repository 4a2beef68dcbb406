//! Addresses of machines and people.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

/// An address with dots. As upstream, numbers may have leading zeros; and an IPv6 address that ends as an IPv4 one has dots too.
pub(super) fn is_ipv4(text: &str) -> bool {
    plain_ipv4(text).is_some() || (text.contains('.') && text.parse::<Ipv6Addr>().is_ok())
}

fn plain_ipv4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<&str> = text.split('.').collect();
    let number =
        |part: &&str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<u8>().ok()).flatten();
    let numbers: Vec<u8> = parts.iter().map(number).collect::<Option<_>>()?;
    <[u8; 4]>::try_from(numbers).ok().map(Ipv4Addr::from)
}

/// An address and the length of its network, with leading zeros or without.
pub(super) fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match plain_ipv4(address) {
        Some(_) => 32,
        None if address.parse::<Ipv6Addr>().is_ok() => 128,
        None => return false,
    };
    length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u32>().is_ok_and(|length| length <= most)
}

/// 6, 8 or 20 bytes in twos with colons or dashes, or in fours with dots (Go's `net.ParseMAC`).
pub(super) fn is_mac(text: &str) -> bool {
    let is_split = |by: char, digits: usize| {
        let parts: Vec<&str> = text.split(by).collect();
        matches!(parts.len() * digits / 2, 6 | 8 | 20)
            && parts.iter().all(|part| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    is_split(':', 2) || is_split('-', 2) || is_split('.', 4)
}

/// Upstream's pattern, oddities included: a name of several labels ends in one of two letters or more; a single label has at most
/// one dash, behind its first character.
pub(super) fn is_hostname(text: &str) -> bool {
    static SYMBOL_OR_LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{S}\p{L}]$").ok());
    static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^\p{L}$").ok());
    let is = |class: &LazyLock<Option<Regex>>, c: char| {
        class.as_ref().is_some_and(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
    };
    let is_plain = |c: char| c.is_ascii_alphanumeric() || is(&SYMBOL_OR_LETTER, c);
    let is_letter = |c: char| c.is_ascii_alphabetic() || is(&LETTER, c);
    let labels: Vec<&str> = text.split('.').collect();
    if text.len() > 255 || labels.iter().any(|label| label.len() > 63) {
        return false;
    }
    let [inner @ .., last] = labels.as_slice() else { return false };
    if inner.is_empty() {
        let mut characters = last.chars();
        let is_started = characters.next().is_some_and(is_plain);
        let rest = characters.as_str();
        return is_started && rest.strip_prefix('-').unwrap_or(rest).chars().all(is_plain);
    }
    let is_label = |label: &&str| {
        label.starts_with(is_plain)
            && label.ends_with(is_plain)
            && label.chars().all(|c| c == '-' || is_plain(c))
    };
    inner.iter().all(is_label) && last.chars().count() >= 2 && last.chars().all(is_letter)
}

/// An address, or a name with an address in angle brackets (RFC 5322, as Go's `mail.ParseAddress`; comments aren't known here).
pub(super) fn is_email(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.rsplit_once('<')) else {
        return is_address(text);
    };
    is_phrase(name) && is_address(address)
}

fn is_address(text: &str) -> bool {
    let Some((user, host)) = text.rsplit_once('@') else { return false };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_host = match literal {
        Some(address) => address.parse::<std::net::IpAddr>().is_ok(),
        None => is_dotted(host),
    };
    is_host && (is_dotted(user) || is_quoted(user))
}

/// Words between single dots.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|word| !word.is_empty() && word.chars().all(is_of_word))
}

fn is_of_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || !c.is_ascii()
}

fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut is_escaped = false;
    let is_text = inner.is_some_and(|inner| {
        inner.chars().all(|c| {
            let is_plain = is_escaped || c == '\\' || c != '"';
            is_escaped = !is_escaped && c == '\\';
            is_plain && (c == '\t' || !c.is_control())
        })
    });
    is_text && !is_escaped
}

/// A name before an address: nothing, words, or words in quotes.
fn is_phrase(text: &str) -> bool {
    let text = text.trim_matches([' ', '\t']);
    is_quoted(text) || text.split([' ', '\t']).all(|word| word.chars().all(|c| c == '.' || is_of_word(c)))
}
