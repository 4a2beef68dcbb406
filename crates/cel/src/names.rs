//! Names of objects, labels and annotations: what each form looks like, and what is wrong with a text that doesn't.
//!
//! Follows `k8s.io/apimachinery/pkg/util/validation` (RFC 1123, RFC 1035). Expressions ask for these forms by
//! `format.dns1123Label()` and its like.

const LABEL: &str =
    "must be at most 63 lower case letters, digits or '-', and begin and end with a letter or a digit";
const LABEL_1035: &str = "must be at most 63 lower case letters, digits or '-', begin with a letter and end with a letter or a digit";
const SUBDOMAIN: &str = "must be at most 253 lower case letters, digits, '-' or '.', and each part between dots must begin \
    and end with a letter or a digit";
const QUALIFIED: &str = "must be a name of at most 63 letters, digits, '-', '_' or '.' that begins and ends with a letter or \
    a digit, with an optional prefix of a DNS subdomain and '/', such as example.com/name";
const LABEL_VALUE: &str = "must be empty, or at most 63 letters, digits, '-', '_' or '.' that begin and end with a letter or \
    a digit";

fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if is_alphanumeric(*a) && is_alphanumeric(*z))
        && bytes.iter().all(|b| is_alphanumeric(*b) || *b == b'-')
}

/// RFC 1123 label.
pub fn label_fault(name: &str) -> Option<&'static str> {
    (name.len() > 63 || !is_label(name)).then_some(LABEL)
}

/// RFC 1035 label.
pub fn label_1035_fault(name: &str) -> Option<&'static str> {
    (name.len() > 63 || !is_label(name) || !name.as_bytes()[0].is_ascii_lowercase()).then_some(LABEL_1035)
}

/// RFC 1123 subdomain.
pub fn subdomain_fault(name: &str) -> Option<&'static str> {
    (name.len() > 253 || !name.split('.').all(is_label)).then_some(SUBDOMAIN)
}

/// Key of a label or an annotation, or a finalizer.
pub fn qualified_fault(name: &str) -> Option<&'static str> {
    qualified_faults(name).next()
}

/// Likewise, every fault: upstream says of a key that is empty that it is, and that it doesn't look like one.
pub fn qualified_faults(name: &str) -> impl Iterator<Item = &'static str> {
    let (prefix, name) = match name.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, name),
    };
    let faults = if name.contains('/') {
        1
    } else {
        let in_prefix = prefix.is_some_and(|prefix| subdomain_fault(prefix).is_some());
        usize::from(in_prefix) + usize::from(!is_word(name)) + usize::from(name.is_empty())
    };
    std::iter::repeat_n(QUALIFIED, faults)
}

/// Value of a label.
pub fn label_value_fault(value: &str) -> Option<&'static str> {
    (!value.is_empty() && !is_word(value)).then_some(LABEL_VALUE)
}

fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    text.len() <= 63
        && ends(bytes.first())
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
        for good in ["a", "A_b.c", "example.com/a"] {
            assert!(qualified_fault(good).is_none(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "bad key!", "EX.com/a"] {
            assert!(qualified_fault(bad).is_some(), "{bad}");
        }
        assert!(label_value_fault("").is_none() && label_value_fault("a b").is_some());
    }
}
