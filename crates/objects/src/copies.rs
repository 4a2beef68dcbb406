//! One copy of what many objects have in common: pods of one owner have the same labels, owners, namespace and spec.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::Labels;

/// As many forgotten copies are always borne. A weak reference keeps a copy's bytes, though not what those point to.
const FEW: usize = 64;

/// The copies of one type that somebody has. It keeps none alive.
pub(crate) struct Copies<T: ?Sized> {
    hasher: RandomState,
    known: Mutex<Known<T>>,
}

struct Known<T: ?Sized> {
    /// The newest copy of each hash: two that meet there only share less.
    copies: HashMap<u64, Weak<T>>,
    /// How many values are looked for until those that nobody has any more are thrown away again.
    left: usize,
}

impl<T: ?Sized> Default for Copies<T> {
    fn default() -> Self {
        let known = Known { copies: HashMap::new(), left: FEW };
        Copies { hasher: RandomState::new(), known: Mutex::new(known) }
    }
}

impl<T: ?Sized + PartialEq> Copies<T> {
    /// The copy that is equal to a value: that of the last value with the same `mark`, if it is.
    pub fn one<V: Into<Arc<T>> + Borrow<T>>(&self, mark: impl Hash, value: V) -> Arc<T> {
        let hash = self.hasher.hash_one(mark);
        let known = self.locked(|known| known.find(hash));
        // Compared without the lock: many are read at the same time.
        if let Some(known) = known.filter(|known| **known == *value.borrow()) {
            return known;
        }
        let copy = value.into();
        self.locked(|known| known.copies.insert(hash, Arc::downgrade(&copy)));
        copy
    }

    fn locked<R>(&self, look: impl FnOnce(&mut Known<T>) -> R) -> R {
        look(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T: ?Sized> Known<T> {
    fn find(&mut self, hash: u64) -> Option<Arc<T>> {
        // After as many as there were: throwing away costs each a constant, and it begins also when nothing new comes.
        if self.left == 0 {
            self.copies.retain(|_, copy| copy.strong_count() > 0);
            self.copies.shrink_to(2 * self.copies.len() + FEW);
            self.left = self.copies.len() + FEW;
        }
        self.left -= 1;
        self.copies.get(&hash).and_then(Weak::upgrade)
    }
}

/// One copy of a text that stands in many objects: the name of a namespace, of a node, of a kind.
pub fn shared_text(text: &str) -> Arc<str> {
    static TEXTS: LazyLock<Copies<str>> = LazyLock::new(Copies::default);
    TEXTS.one(text, text)
}

/// One copy of the labels that objects have.
pub fn shared_labels(labels: Labels) -> Arc<Labels> {
    static LABELS: LazyLock<Copies<Labels>> = LazyLock::new(Copies::default);
    // Hashed before they move.
    let mark = LABELS.hasher.hash_one(&labels);
    LABELS.one(mark, labels)
}

/// One copy of the owners that objects have.
pub fn shared_owners(owners: Vec<OwnerReference>) -> Arc<[OwnerReference]> {
    static OWNERS: LazyLock<Copies<[OwnerReference]>> = LazyLock::new(Copies::default);
    let uid = owners.first().map(|owner| owner.uid.clone());
    OWNERS.one(uid, owners)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_copy_for_as_long_as_somebody_has_it() {
        let copies = Copies::<str>::default();
        let one = copies.one("a", "a");
        assert!(Arc::ptr_eq(&one, &copies.one("a", "a")));
        assert_eq!(&*copies.one("a", "b"), "b", "the mark only says what to compare with");
        assert_eq!(&*copies.one("a", "a"), "a");
        let gone = Arc::downgrade(&copies.one("c", "c"));
        assert!(gone.upgrade().is_none());
    }

    #[test]
    fn what_nobody_has_any_more_is_thrown_away() {
        let copies = Copies::<str>::default();
        let kept: Vec<_> = (0..100usize).map(|n| copies.one(n, n.to_string().as_str())).collect();
        for n in 100..10_000usize {
            copies.one(n, n.to_string().as_str());
        }
        let known = copies.known.lock().unwrap().copies.len();
        assert!(known <= 2 * kept.len() + 2 * FEW, "{known}");
        assert!(kept.iter().enumerate().all(|(n, copy)| Arc::ptr_eq(copy, &copies.one(n, &**copy))));
    }

    #[test]
    fn it_is_thrown_away_also_when_nothing_new_comes() {
        let copies = Copies::<str>::default();
        let kept = copies.one("a", "a");
        drop((0..1000usize).map(|n| copies.one(n, n.to_string().as_str())).collect::<Vec<_>>());
        for _ in 0..2000 {
            copies.one("a", &*kept);
        }
        assert_eq!(copies.known.lock().unwrap().copies.len(), 1);
    }
}
