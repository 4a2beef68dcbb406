//! Paths and queries, with what would break them escaped.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b':');

/// One segment of a path, or one value of a query.
pub(crate) fn escaped(segment: &str) -> String {
    utf8_percent_encode(segment, PLAIN).to_string()
}

/// A path with a query; without one when there is nothing to say.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let all: Vec<String> = pairs.iter().map(|(k, v)| format!("{}={}", escaped(k), escaped(v))).collect();
    if all.is_empty() { path.to_owned() } else { format!("{path}?{}", all.join("&")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_escaped() {
        assert_eq!(with_query("/a", &[]), "/a");
        assert_eq!(
            with_query("/a", &[("l", "app=web,x in (a&b)"), ("m", "1")]),
            "/a?l=app%3Dweb%2Cx%20in%20%28a%26b%29&m=1"
        );
    }
}
