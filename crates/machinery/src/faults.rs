//! The faults that are found in an object, of which only a limited number is kept.

use std::ops::Deref;

use crate::status::Cause;

/// The most faults that are reported one by one: nobody mends more at a time, and an object can have a million.
pub(crate) const MOST_FAULTS: usize = 100;

/// Faults as they are found: the first ones, and how many there are more.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Faults {
    kept: Vec<Cause>,
    more: usize,
}

impl Faults {
    /// One more fault.
    pub fn push(&mut self, cause: Cause) {
        if self.is_full() {
            self.more += 1;
        } else {
            self.kept.push(cause);
        }
    }

    /// Whether what is found from now on is only counted: a long search may end here.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= MOST_FAULTS
    }

    /// All that others found.
    pub fn append(&mut self, others: Faults) {
        self.more += others.more;
        self.extend(others.kept);
    }

    /// Changes those that are kept.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Cause> {
        self.kept.iter_mut()
    }

    /// Only those of which `keep` says so.
    pub fn retain(&mut self, keep: impl FnMut(&Cause) -> bool) {
        self.kept.retain(keep);
    }

    /// Brings those that are kept into the order of their texts.
    pub fn sort(&mut self) {
        self.kept.sort_by_cached_key(|cause| format!("{}: {}", cause.field, cause.message));
    }

    /// What is reported: those that were kept, then one that says how many more there were.
    pub fn into_causes(mut self) -> Vec<Cause> {
        if self.more > 0 {
            let plural = if self.more == 1 { "" } else { "s" };
            let message = format!("too many faults: at least {} more fault{plural} not told", self.more);
            self.kept.push(Cause { reason: "FieldValueTooMany".into(), message, field: String::new() });
        }
        self.kept
    }
}

impl Deref for Faults {
    type Target = [Cause];

    fn deref(&self) -> &[Cause] {
        &self.kept
    }
}

impl Extend<Cause> for Faults {
    fn extend<T: IntoIterator<Item = Cause>>(&mut self, causes: T) {
        causes.into_iter().for_each(|cause| self.push(cause));
    }
}

impl IntoIterator for Faults {
    type Item = Cause;
    type IntoIter = std::vec::IntoIter<Cause>;

    fn into_iter(self) -> Self::IntoIter {
        self.into_causes().into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_are_kept_and_the_rest_counted() {
        let mut faults = Faults::default();
        faults.extend((0..100).map(|n| Cause::required(format!("a[{n}]"), "")));
        assert_eq!(faults.clone().into_causes().len(), 100);
        faults.push(Cause::required("b", ""));
        let one = faults.clone().into_causes();
        assert_eq!((one.len(), one[99].field.as_str()), (101, "a[99]"));
        assert_eq!(one[100].message, "too many faults: at least 1 more fault not told");
        let mut others = Faults::default();
        others.append(faults);
        others.extend((0..10).map(|n| Cause::required(format!("c[{n}]"), "")));
        assert_eq!(others.into_causes()[100].message, "too many faults: at least 11 more faults not told");
    }
}
