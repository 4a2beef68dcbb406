//! Sets of completion indexes, in the form that a Job's status has them: `0,3-5,7` (KEP-2214; `orderedIntervals` of
//! `pkg/controller/job/indexed_job_utils.go`).

use std::fmt;

/// A set of indexes: ranges of them in order, of which no two touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads a set, as far as its indexes are below `completions`. What is none is passed over.
    pub fn parse(text: &str, completions: i32) -> Self {
        let mut all = Indexes::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            let last = last.min(completions - 1);
            if 0 <= first && first <= last {
                all.insert_range(first, last);
            }
        }
        all
    }

    /// Adds an index.
    pub fn insert(&mut self, index: i32) {
        self.insert_range(index, index);
    }

    /// Adds all of another set.
    pub fn extend(&mut self, others: &Indexes) {
        others.0.iter().for_each(|(first, last)| self.insert_range(*first, *last));
    }

    fn insert_range(&mut self, mut first: i32, mut last: i32) {
        // Those that it touches become one with it.
        let from = self.0.partition_point(|(_, end)| end.saturating_add(1) < first);
        let to = self.0.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
        if let Some((begin, _)) = self.0.get(from).filter(|_| from < to) {
            first = first.min(*begin);
        }
        if let Some((_, end)) = to.checked_sub(1).and_then(|at| self.0.get(at)).filter(|_| from < to) {
            last = last.max(*end);
        }
        self.0.splice(from..to, [(first, last)]);
    }

    /// Whether an index is in it.
    pub fn has(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, end)| *end < index);
        self.0.get(at).is_some_and(|(begin, _)| *begin <= index)
    }

    /// How many indexes are in it.
    pub fn count(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).fold(0, i32::saturating_add)
    }

    /// How many of another set's indexes are in it.
    pub fn count_of(&self, others: &Indexes) -> i32 {
        let mut both = 0;
        for (first, last) in &others.0 {
            let from = self.0.partition_point(|(_, end)| end < first);
            let common = self.0.iter().skip(from).take_while(|(begin, _)| begin <= last);
            both += common.map(|(begin, end)| end.min(last) - begin.max(first) + 1).sum::<i32>();
        }
        both
    }

    /// The first `most` indexes below `completions` that are not in it.
    pub fn missing(&self, most: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            let free = next..first.min(completions);
            missing.extend(free.take(most - missing.len()));
            next = last.saturating_add(1);
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_has_what_was_added_in_any_order(
            all in prop::collection::vec(0..40, 0..60),
            others in prop::collection::btree_set(0..40, 0..40),
            completions in 0..45,
            most in 0_usize..10,
        ) {
            let of = |values: &mut dyn Iterator<Item = i32>| {
                let mut indexes = Indexes::default();
                values.for_each(|index| indexes.insert(index));
                indexes
            };
            let indexes = of(&mut all.iter().copied());
            let model: BTreeSet<i32> = all.into_iter().collect();
            prop_assert_eq!(usize::try_from(indexes.count()).unwrap(), model.len());
            prop_assert!((0..45).all(|index| indexes.has(index) == model.contains(&index)));
            prop_assert!(indexes.0.windows(2).all(|two| two[0].1 + 1 < two[1].0), "{:?}", indexes.0);
            let below = of(&mut model.iter().copied().filter(|index| *index < completions));
            prop_assert_eq!(Indexes::parse(&indexes.to_string(), completions), below);
            let other = of(&mut others.iter().copied());
            prop_assert_eq!(usize::try_from(indexes.count_of(&other)).unwrap(), model.intersection(&others).count());
            let mut union = indexes.clone();
            union.extend(&other);
            prop_assert_eq!(union, of(&mut model.union(&others).copied()));
            let missing: Vec<i32> = (0..completions).filter(|index| !model.contains(index)).take(most).collect();
            prop_assert_eq!(indexes.missing(most, completions), missing);
        }
    }

    #[test]
    fn two_in_a_row_are_no_range() {
        let indexes = Indexes::parse("0,1,3-5,9-9,x,7-6", 100);
        assert_eq!(indexes.to_string(), "0,1,3-5,9");
        assert_eq!(Indexes::parse("2-9", 5).to_string(), "2-4");
    }
}
