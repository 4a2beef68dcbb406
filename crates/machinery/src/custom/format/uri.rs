//! Addresses of resources, as Go's `url.ParseRequestURI` takes them.

/// Whether a text is an absolute URI or an absolute path.
pub(super) fn is_request_uri(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    if text.bytes().any(|b| b.is_ascii_control()) {
        return false;
    }
    let Some((has_scheme, rest)) = without_scheme(text) else { return false };
    let rest = rest.split_once('?').map_or(rest, |(path, _)| path);
    let Some(path) = rest.strip_prefix('/') else {
        // What has a scheme and no path is opaque: `mailto:a@b`.
        return has_scheme;
    };
    match path.strip_prefix('/').filter(|_| has_scheme) {
        Some(authority) => {
            let (authority, path) = authority.split_once('/').unwrap_or((authority, ""));
            is_authority(authority) && is_escaped(path, |_| true)
        }
        None => is_escaped(path, |_| true),
    }
}

/// Whether there is a scheme, and what stands behind it; nothing where a colon comes first.
fn without_scheme(text: &str) -> Option<(bool, &str)> {
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' => {}
            b'0'..=b'9' | b'+' | b'-' | b'.' if index > 0 => {}
            b':' if index == 0 => return None,
            b':' => return Some((true, &text[index + 1..])),
            _ => break,
        }
    }
    Some((false, text))
}

fn is_authority(text: &str) -> bool {
    let (user, host) = text.rsplit_once('@').map_or((None, text), |(user, host)| (Some(user), host));
    let is_of_user = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
    user.is_none_or(|user| user.chars().all(is_of_user) && is_escaped(user, |_| true)) && is_host(host)
}

fn is_host(text: &str) -> bool {
    let is_port =
        |port: &str| port.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()));
    let (host, port) = if text.starts_with('[') {
        let Some(end) = text.rfind(']') else { return false };
        text.split_at(end + 1)
    } else {
        text.split_at(text.rfind(':').unwrap_or(text.len()))
    };
    let is_of_host =
        |b: u8| !b.is_ascii() || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"".contains(&b);
    // In brackets a zone may stand behind `%25`, in which more is escaped.
    let (host, zone) =
        host.find("%25").filter(|_| text.starts_with('[')).map_or((host, ""), |at| host.split_at(at));
    (port.is_empty() || is_port(port))
        && host.bytes().all(|b| b == b'%' || is_of_host(b))
        && is_escaped(host, |byte| !byte.is_ascii())
        && is_escaped(zone, |byte| !byte.is_ascii() || byte == b'%' || byte == b' ' || is_of_host(byte))
}

/// Whether each `%` has two hexadecimal digits behind it, of a byte that may be escaped there.
fn is_escaped(text: &str, may_be: impl Fn(u8) -> bool) -> bool {
    text.split('%').skip(1).all(|behind| {
        let digits = behind.get(..2).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()).is_some_and(&may_be)
    })
}
