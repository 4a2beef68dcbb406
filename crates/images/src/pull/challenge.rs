//! What a registry asks for with 401: RFC 9110, 11.6.1, and the distribution specification's tokens.

/// How to say who one is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request.
    Basic,
    /// A token, which is to be had somewhere.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// Reads the values of `WWW-Authenticate`. Where several ways are offered a token is preferred, as by Docker.
pub(super) fn challenge<'a>(values: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut best = None;
    for value in values {
        for (scheme, parameters) in schemes(value) {
            let get = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            match (scheme.to_ascii_lowercase().as_str(), get("realm")) {
                ("bearer", Some(realm)) => {
                    return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
                }
                ("basic", _) => best = Some(Challenge::Basic),
                _ => {}
            }
        }
    }
    best
}

type Parameters = Vec<(String, String)>;

/// `Scheme key="value", key=value, Scheme ...`: a word that no `=` follows begins the next scheme.
fn schemes(value: &str) -> Vec<(String, Parameters)> {
    let mut found: Vec<(String, Parameters)> = Vec::new();
    let mut rest = value;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find(|c: char| c.is_whitespace() || c == '=' || c == ',').unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            return found;
        }
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(after), Some((_, parameters))) => {
                let (text, after) = text(after);
                parameters.push((word.to_owned(), text));
                rest = after;
            }
            // A parameter of no scheme.
            (Some(_), None) => return found,
            (None, _) => {
                found.push((word.to_owned(), Vec::new()));
                rest = after;
            }
        }
    }
}

/// A quoted string or a token, and what follows it.
fn text(rest: &str) -> (String, &str) {
    let Some(quoted) = rest.strip_prefix('"') else {
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        return (rest[..end].to_owned(), &rest[end..]);
    };
    let mut whole = String::new();
    let mut escaped = false;
    for (index, c) in quoted.char_indices() {
        match c {
            _ if escaped => {
                whole.push(c);
                escaped = false;
            }
            '\\' => escaped = true,
            '"' => return (whole, &quoted[index + 1..]),
            c => whole.push(c),
        }
    }
    (whole, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_send_them() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            let own = |text: Option<&str>| text.map(str::to_owned);
            Some(Challenge::Bearer { realm: realm.into(), service: own(service), scope: own(scope) })
        };
        for (values, is) in [
            (
                &[
                    r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                ][..],
                bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                    Some("repository:a/b:pull,push"),
                ),
            ),
            (&[r#"bearer Realm=https://x , SERVICE="a\"b""#], bearer("https://x", Some("a\"b"), None)),
            (&[r#"Basic realm="a, Bearer realm=b""#], Some(Challenge::Basic)),
            (&[r#"Basic realm="a", Bearer realm="b""#], bearer("b", None, None)),
            (&["Basic", r#"Bearer realm="b""#], bearer("b", None, None)),
            (&["Bearer"], None),
            (&["Negotiate abc=="], None),
            (&[r#"realm="x""#], None),
            (&[r#"Bearer realm="x"#], bearer("x", None, None)),
            (&["", ",,,"], None),
        ] {
            assert_eq!(challenge(values.iter().copied()), is, "{values:?}");
        }
    }
}
