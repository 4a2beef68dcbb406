//! Names of resources that come and go: each text is kept once and for good, so that it lives as long as those that
//! are part of the program. Names are short, few and the same again; what is large (schemas) is not kept so.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{LazyLock, Mutex, PoisonError};

use crate::resource::Subresource;

type Kept<K, V> = LazyLock<Mutex<HashMap<K, V>>>;

static TEXTS: Kept<String, &'static str> = LazyLock::new(Mutex::default);
static LISTS: Kept<Vec<&'static str>, &'static [&'static str]> = LazyLock::new(Mutex::default);
static SUBRESOURCES: Kept<(&'static str, bool, bool), &'static [Subresource]> = LazyLock::new(Mutex::default);

fn kept<K: Eq + Hash, V: Copy>(all: &Kept<K, V>, key: K, make: impl FnOnce(&K) -> V) -> V {
    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = all.get(&key) {
        return *known;
    }
    let value = make(&key);
    all.insert(key, value);
    value
}

/// The text, for good.
pub(super) fn text(text: &str) -> &'static str {
    kept(&TEXTS, text.to_owned(), |text| &*text.clone().leak())
}

/// The texts, for good.
pub(super) fn list(texts: &[String]) -> &'static [&'static str] {
    let texts: Vec<&'static str> = texts.iter().map(|item| text(item)).collect();
    kept(&LISTS, texts, |texts| &*texts.clone().leak())
}

const PARTLY: &[&str] = &["get", "patch", "update"];

/// The subresources of a kind.
pub(super) fn subresources(kind: &'static str, status: bool, scale: bool) -> &'static [Subresource] {
    kept(&SUBRESOURCES, (kind, status, scale), |_| {
        let mut all = Vec::new();
        if status {
            all.push(Subresource { name: "status", group: "", version: "", kind, verbs: PARTLY });
        }
        if scale {
            let (group, version) = ("autoscaling", "v1");
            all.push(Subresource { name: "scale", group, version, kind: "Scale", verbs: PARTLY });
        }
        all.leak()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        assert!(std::ptr::eq(text("widgets"), text("widgets")));
        assert!(std::ptr::eq(list(&["w".into()]), list(&["w".into()])));
        let both = subresources(text("Widget"), true, true);
        assert_eq!(both.iter().map(|s| s.name).collect::<Vec<_>>(), ["status", "scale"]);
        assert!(subresources(text("Widget"), false, false).is_empty());
    }
}
