//! Names of objects, labels and annotations: what each form looks like, and what is wrong with a text that doesn't.
//!
//! Follows `k8s.io/apimachinery/pkg/util/validation` (RFC 1123, RFC 1035), whose words people and their scripts know. Expressions
//! ask for these forms by `format.dns1123Label()` and its like.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
    with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DOTS: &str = "must not contain dots";
const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
    character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is \
    '[a-z]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
    start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const PREFIX: &str = "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
    and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
    '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const PREFIX_EMPTY: &str = "prefix part must be non-empty";
const PREFIX_LONG: &str = "prefix part must be no more than 253 bytes";
const NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const NAME_EMPTY: &str = "name part must be non-empty";
const NAME_LONG: &str = "name part must be no more than 63 bytes";
const QUALIFIED: &str = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
    an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
    start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
    '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const LONGER_THAN_LABEL: &str = "must be no more than 63 bytes";
const LONGER_THAN_SUBDOMAIN: &str = "must be no more than 253 bytes";

/// The longest label and the longest subdomain, in bytes.
const LABEL_BYTES: usize = 63;
const SUBDOMAIN_BYTES: usize = 253;

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if is_alphanumeric(*a) && is_alphanumeric(*z))
        && bytes.iter().all(|b| is_alphanumeric(*b) || *b == b'-')
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// RFC 1123 label.
pub fn label_fault(name: &str) -> Option<&'static str> {
    match name {
        _ if is_label(name) => (name.len() > LABEL_BYTES).then_some(LONGER_THAN_LABEL),
        _ if is_subdomain(name) => Some(DOTS),
        _ => Some(LABEL),
    }
}

/// RFC 1035 label.
pub fn label_1035_fault(name: &str) -> Option<&'static str> {
    match is_label(name) && name.as_bytes()[0].is_ascii_lowercase() {
        true => (name.len() > LABEL_BYTES).then_some(LONGER_THAN_LABEL),
        false => Some(LABEL_1035),
    }
}

/// RFC 1123 subdomain.
pub fn subdomain_fault(name: &str) -> Option<&'static str> {
    match is_subdomain(name) {
        true => (name.len() > SUBDOMAIN_BYTES).then_some(LONGER_THAN_SUBDOMAIN),
        false => Some(SUBDOMAIN),
    }
}

/// Key of a label or an annotation, or a finalizer.
pub fn qualified_fault(name: &str) -> Option<&'static str> {
    qualified_faults(name).next()
}

/// Likewise, every fault: upstream says of a key that is empty that it is, and that it doesn't look like one.
pub fn qualified_faults(name: &str) -> impl Iterator<Item = &'static str> {
    let parts: Vec<&str> = name.splitn(3, '/').collect();
    let (prefix, word, whole) = match parts[..] {
        [word] => (None, Some(word), None),
        ["", word] => (Some(PREFIX_EMPTY), Some(word), None),
        [prefix, word] if !is_subdomain(prefix) => (Some(PREFIX), Some(word), None),
        [prefix, word] => ((prefix.len() > SUBDOMAIN_BYTES).then_some(PREFIX_LONG), Some(word), None),
        _ => (None, None, Some(QUALIFIED)),
    };
    let length = word.and_then(|word| match word.len() {
        0 => Some(NAME_EMPTY),
        length => (length > LABEL_BYTES).then_some(NAME_LONG),
    });
    let form = word.filter(|word| !is_word(word)).map(|_| NAME);
    [prefix, length, form, whole].into_iter().flatten()
}

/// Value of a label.
pub fn label_value_fault(value: &str) -> Option<&'static str> {
    match value.is_empty() || is_word(value) {
        true => (value.len() > LABEL_BYTES).then_some(LONGER_THAN_LABEL),
        false => Some(LABEL_VALUE),
    }
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_from_others() {
        assert!(subdomain_fault("a.b-c.d").is_none());
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a"] {
            assert!(subdomain_fault(bad).is_some(), "{bad}");
        }
        assert!(label_fault("1a").is_none() && label_1035_fault("1a").is_some());
        assert!(label_1035_fault("").is_some());
        assert_eq!(label_fault("a.b"), Some("must not contain dots"));
        for good in ["a", "A_b.c", "example.com/a"] {
            assert!(qualified_fault(good).is_none(), "{good}");
        }
        for (bad, faults) in [("", 2), ("/a", 1), ("a/", 2), ("a/b/c", 1), ("bad key!", 1), ("EX.com/-", 2)] {
            assert_eq!(qualified_faults(bad).count(), faults, "{bad}");
        }
        assert!(label_value_fault("").is_none() && label_value_fault("a b").is_some());
    }

    #[test]
    fn what_is_too_long_is_told_so() {
        let long = "a".repeat(64);
        for fault in [label_fault(&long), label_1035_fault(&long), label_value_fault(&long)] {
            assert_eq!(fault, Some("must be no more than 63 bytes"));
        }
        assert_eq!(subdomain_fault(&"a".repeat(254)), Some("must be no more than 253 bytes"));
        let both: Vec<_> = qualified_faults(&format!("{}/{long}", "a".repeat(254))).collect();
        assert_eq!(
            both,
            ["prefix part must be no more than 253 bytes", "name part must be no more than 63 bytes"]
        );
    }
}
