//! Which headers go through a proxy (RFC 9110, section 7.6.1).

use http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue, Uri};

const HOP_BY_HOP: [HeaderName; 7] =
    [CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What headers begin with that say in whose name a request comes: a backend believes them of a front proxy.
const IDENTITY: [&str; 2] = ["impersonate-", "x-remote-"];

/// Takes out what belongs to one connection alone.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    headers.remove("keep-alive");
    headers.remove("proxy-connection");
}

/// Makes a client's headers those of the request to the backend: without credentials, for the backend's
/// host, and saying how the request came here.
pub(super) fn to_backend(headers: &mut HeaderMap, original: &Uri, host: &str) {
    strip_hop_by_hop(headers);
    headers.remove(AUTHORIZATION);
    let says_who = |name: &&HeaderName| IDENTITY.iter().any(|prefix| name.as_str().starts_with(prefix));
    let saying_who: Vec<HeaderName> = headers.keys().filter(says_who).cloned().collect();
    for name in saying_who {
        headers.remove(name);
    }
    let original_host = headers.remove(HOST).or_else(|| HeaderValue::from_str(original.host()?).ok());
    let mut set = |name: &'static str, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    set("x-forwarded-host", original_host);
    set("x-forwarded-uri", HeaderValue::from_str(original.path()).ok());
    set("x-forwarded-proto", Some(HeaderValue::from_static("https")));
    set("host", HeaderValue::from_str(host).ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_one_connection_or_names_the_user_stays_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-mine"),
            ("x-mine", "1"),
            ("x-kept", "1"),
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("x-remote-group", "system:masters"),
            ("x-remote-extra-scopes", "all"),
            ("host", "api:6443"),
            ("transfer-encoding", "chunked"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        to_backend(&mut headers, &Uri::from_static("/api/v1/x"), "10.0.0.1:80");
        let mut names: Vec<_> = headers.iter().map(|(k, v)| format!("{k}={}", v.to_str().unwrap())).collect();
        names.sort();
        assert_eq!(
            names,
            [
                "host=10.0.0.1:80",
                "x-forwarded-host=api:6443",
                "x-forwarded-proto=https",
                "x-forwarded-uri=/api/v1/x",
                "x-kept=1"
            ]
        );
    }
}
