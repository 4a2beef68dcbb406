//! Percentiles by nearest rank.

use serde::Serialize;

/// p50, p99 and max over all runs, of a clock in milliseconds or of a count; none where that many runs never got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Half of the runs were no slower.
    pub p50: Option<u64>,
    /// 99 of 100 runs were no slower.
    pub p99: Option<u64>,
    /// The slowest run.
    pub max: Option<u64>,
}

impl Percentiles {
    /// Of the values of all runs; none stands for a run that never got there, and is slower than any other.
    pub fn of(values: &[Option<u64>]) -> Self {
        let rank = |p| nearest_rank(values, p).flatten();
        Percentiles { p50: rank(50), p99: rank(99), max: rank(100) }
    }
}

/// The smallest value that `percent` of all values do not exceed (the nearest-rank method); none of nothing.
pub fn nearest_rank(values: &[Option<u64>], percent: usize) -> Option<Option<u64>> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by_key(|v| v.unwrap_or(u64::MAX));
    let rank = (sorted.len() * percent.min(100)).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_nearest_rank() {
        let twenty: Vec<Option<u64>> = (1..=20).rev().map(Some).collect();
        let hundred: Vec<Option<u64>> = (1..=100).map(Some).collect();
        for (values, p50, p99, max) in [
            (vec![], None, None, None),
            (vec![Some(7)], Some(7), Some(7), Some(7)),
            (vec![Some(2), Some(1)], Some(1), Some(2), Some(2)),
            (twenty, Some(10), Some(20), Some(20)),
            (hundred, Some(50), Some(99), Some(100)),
            (vec![Some(1), None, Some(2)], Some(2), None, None),
            (vec![None], None, None, None),
        ] {
            assert_eq!(Percentiles::of(&values), Percentiles { p50, p99, max }, "{values:?}");
        }
    }
}
