//! JSON pointers (RFC 6901): a path of names and places, each behind a slash.

use std::borrow::Cow;

/// The names and places on a pointer's way. What stands before the first slash is none of them.
pub(crate) fn tokens(pointer: &str) -> impl Iterator<Item = Cow<'_, str>> {
    pointer.split('/').skip(1).map(unescaped)
}

/// The name that a token stands for.
pub(crate) fn unescaped(token: &str) -> Cow<'_, str> {
    // `~0` last: the tilde that it stands for escapes nothing.
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

/// The token that stands for a name.
pub(crate) fn escaped(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) { name.replace('~', "~0").replace('/', "~1").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_survive_their_tokens(names in proptest::collection::vec("[a~/01]{0,5}", 0..4)) {
            let pointer: String = names.iter().map(|name| format!("/{}", escaped(name))).collect();
            prop_assert_eq!(tokens(&pointer).collect::<Vec<_>>(), names);
        }
    }

    #[test]
    fn tokens_are_those_of_the_rfc() {
        assert_eq!(tokens("/a~1b/m~0n/~01/").collect::<Vec<_>>(), ["a/b", "m~n", "~1", ""]);
        assert_eq!(tokens("").count(), 0);
    }
}
