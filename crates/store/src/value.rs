//! A key's value: its bytes, or what makes them differ from those of a value like it.
//!
//! Most of what a cluster's store holds is alike: ten thousand pods of some kilobytes each differ in their names, addresses and
//! times, and the versions of one of them in a line or two. Whole, they were most of a host's memory.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::packing::{pack, unpack};

/// Shorter values are not worth the work, and a difference that says where all of it comes from is no shorter.
const SHORTEST: usize = 768;
/// With a base as long as this, all of a value can still point to all of it (LZ4 points back 64 KiB).
const LONGEST: usize = 32 << 10;
/// A difference takes at most one part in this many of its value. What differs more begins a base of its own, which
/// those that come after it are likely to be closer to: pods that run, after pods that were only made.
const WORTH: usize = 4;

/// The value of a key, opaque to the store. Versions in the map may be kept as differences, and are made whole whenever
/// somebody reads them.
#[derive(Clone)]
pub struct Value(Form);

#[derive(Clone)]
enum Form {
    Whole(Bytes),
    /// Whole, and others are kept as differences from it.
    Base(Arc<Base>),
    Difference {
        base: Arc<Base>,
        difference: Box<[u8]>,
        length: usize,
    },
}

/// What values like it are kept as differences from. It lives for as long as one of them does.
struct Base {
    bytes: Bytes,
    /// The newest base of a value that was a difference from this one before it was changed: others that change will become
    /// like it too.
    heir: Mutex<Weak<Base>>,
}

impl Value {
    /// Its bytes.
    pub fn bytes(&self) -> Bytes {
        match &self.0 {
            Form::Whole(bytes) => bytes.clone(),
            Form::Base(base) => base.bytes.clone(),
            Form::Difference { base, difference, length } => unpack(difference, &base.bytes, *length),
        }
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Base(base) => base.bytes.len(),
            Form::Difference { length, .. } => *length,
        }
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same value, kept as a difference where that pays: from what `previous` is kept as, the version of the same key
    /// that it replaces, or if there is none from `beside`, another key's that is likely to be like it.
    #[must_use]
    pub(crate) fn packed(self, previous: Option<&Value>, beside: Option<&Value>) -> Value {
        let Form::Whole(bytes) = &self.0 else { return self };
        if !(SHORTEST..=LONGEST).contains(&bytes.len()) {
            return self;
        }
        let nearest = previous.or(beside).and_then(Value::base);
        let heir = nearest.as_ref().and_then(|base| base.heir());
        for base in nearest.iter().chain(&heir) {
            // A short value must not keep a long one in memory.
            if base.bytes.len() <= 2 * bytes.len()
                && let Some(difference) = pack(bytes, &base.bytes, WORTH)
            {
                return Value(Form::Difference { base: base.clone(), difference, length: bytes.len() });
            }
        }
        // What can't be made smaller on its own (because it is encrypted, or packed already) is like nothing else either.
        if pack(bytes, b"", 1).is_none() {
            return self;
        }
        // A copy of its own: the bytes may be a part of something longer, which would stay for as long as the base does.
        let base = Arc::new(Base { bytes: Bytes::copy_from_slice(bytes), heir: Mutex::default() });
        if let Some(before) = previous.and(nearest) {
            *before.heir.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&base);
        }
        Value(Form::Base(base))
    }

    fn base(&self) -> Option<Arc<Base>> {
        match &self.0 {
            Form::Whole(_) => None,
            Form::Base(base) | Form::Difference { base, .. } => Some(base.clone()),
        }
    }
}

impl Base {
    fn heir(&self) -> Option<Arc<Base>> {
        self.heir.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Value(Form::Whole(bytes))
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Bytes::from(text).into()
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.bytes() == other.bytes()
    }
}

impl Eq for Value {}

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.bytes().fmt(f)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Bytes::deserialize(deserializer).map(Value::from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a value takes beside its base.
    fn taken(value: &Value) -> usize {
        match &value.0 {
            Form::Whole(bytes) => bytes.len(),
            Form::Base(base) => base.bytes.len(),
            Form::Difference { difference, .. } => difference.len(),
        }
    }

    /// Text that is like no other: `seed` decides.
    fn text(seed: u32, length: usize) -> String {
        let words = (1_000_000 * seed..).map(|n| format!("word-{:x} ", n.wrapping_mul(2_654_435_761)));
        words.flat_map(|word| word.into_bytes()).map(char::from).take(length).collect()
    }

    fn value(text: &str) -> Value {
        Value::from(text.as_bytes().to_vec())
    }

    #[test]
    fn what_is_like_another_takes_what_differs() {
        let (made, runs) = (text(1, 2000), text(1, 2000) + &text(2, 2000));
        let first = value(&made).packed(None, None);
        let second = value(&(made.clone() + "of the second")).packed(None, Some(&first));
        assert_eq!((taken(&first), second.bytes()), (2000, Bytes::from(made + "of the second")));
        assert!(taken(&second) < 60, "{}", taken(&second));
        // They change into something else, one after the other: the first of them shows the way.
        let first = value(&runs).packed(Some(&first), None);
        let second = value(&(runs.clone() + "of the second")).packed(Some(&second), None);
        assert_eq!((taken(&first), second.bytes()), (4000, Bytes::from(runs + "of the second")));
        assert!(taken(&second) < 60, "{}", taken(&second));
    }

    #[test]
    fn what_does_not_pay_stays_whole() {
        let base = value(&text(1, 4000)).packed(None, None);
        for whole in [text(2, 4000), text(1, SHORTEST - 1), text(1, 1999), text(1, LONGEST + 1)] {
            let kept = value(&whole).packed(Some(&base), None);
            assert_eq!((taken(&kept), kept.bytes()), (whole.len(), Bytes::from(whole)));
        }
    }

    #[test]
    fn what_is_like_nothing_shares_the_memory_it_came_in() {
        let mut chance = 1u64;
        let random = std::iter::repeat_with(|| {
            chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (chance >> 56) as u8
        });
        let request: Bytes = random.take(4000).collect();
        let kept = Value::from(request.slice(..2000)).packed(None, None);
        assert_eq!(kept.bytes().as_ptr(), request.as_ptr());
        let next = Value::from(request.slice(2000..)).packed(Some(&kept), None);
        assert_eq!(next.bytes().as_ptr(), request[2000..].as_ptr());
    }

    #[test]
    fn a_base_keeps_nothing_but_itself() {
        let request = Bytes::from(text(1, 4000));
        let kept = Value::from(request.slice(..2000)).packed(None, None);
        assert!(request.is_unique(), "nobody else holds the request");
        assert_eq!(kept.len(), 2000);
    }

    proptest! {
        #[test]
        fn any_values_after_each_other_come_back(
            values in proptest::collection::vec((0..4u32, 0..6000usize, ".{0,40}", any::<bool>()), 1..20)
        ) {
            let mut before: Option<Value> = None;
            for (seed, length, end, same_key) in values {
                let whole = text(seed, length) + &end;
                let (previous, beside) = if same_key { (before.as_ref(), None) } else { (None, before.as_ref()) };
                let kept = value(&whole).packed(previous, beside);
                prop_assert_eq!((kept.len(), kept.bytes()), (whole.len(), Bytes::from(whole)));
                before = Some(kept);
            }
        }
    }
}
