//! How long things took, in bounded memory however many there were.

use serde::{Deserialize, Serialize};

/// The number of steps that a power of two is divided into: no value is off by more than 1/128.
const STEPS: u64 = 128;

/// Counts of durations by size, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    largest: u64,
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, nanoseconds: u64) {
        let place = place(nanoseconds);
        if place >= self.counts.len() {
            self.counts.resize(place + 1, 0);
        }
        self.counts[place] += 1;
        self.total += 1;
        self.largest = self.largest.max(nanoseconds);
    }

    /// Counts all that another one counted.
    pub fn merge(&mut self, other: &Histogram) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.largest = self.largest.max(other.largest);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest one, in milliseconds.
    pub fn largest_ms(&self) -> f64 {
        self.largest as f64 / 1e6
    }

    /// The percentile by nearest rank, in milliseconds: the smallest duration that `percent` of all do not
    /// exceed. Not a number if nothing was counted.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).clamp(1, self.total.max(1));
        let mut seen = 0;
        for (place, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return upper(place).min(self.largest) as f64 / 1e6;
            }
        }
        f64::NAN
    }
}

/// Where a value is counted: exactly below [`STEPS`], then in [`STEPS`] steps for each power of two.
fn place(value: u64) -> usize {
    let power = u64::from(value.checked_ilog2().unwrap_or(0)).saturating_sub(STEPS.ilog2().into());
    (power * STEPS + (value >> power)) as usize
}

/// The largest value that is counted at a place.
fn upper(place: usize) -> u64 {
    let (power, step) = match place as u64 {
        low if low < 2 * STEPS => (0, low),
        high => (high / STEPS - 1, high % STEPS + STEPS),
    };
    (step << power) + ((1 << power) - 1)
}

/// The middle value; of an even number of them, the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.record(value));
        histogram
    }

    #[test]
    fn every_value_is_counted_close_to_where_it_is() {
        for value in (0..100_000).chain((0..63).map(|n| 1 << n)).chain([u64::MAX - 1, u64::MAX]) {
            let upper = upper(place(value));
            assert!(upper >= value && upper - value <= value / STEPS, "{value} counts as {upper}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let ms = 1_000_000;
        let cases: [(&[u64], f64, f64); 7] = [
            (&[7], 50.0, 7e-6),
            (&[1, 2, 3, 4], 50.0, 2e-6),
            (&[1, 2, 3, 4, 5], 50.0, 3e-6),
            (&[1, 2, 3, 4, 5], 99.0, 5e-6),
            (&[5, 4, 3, 2, 1], 20.0, 1e-6),
            (&[5, 4, 3, 2, 1], 21.0, 2e-6),
            (&[9 * ms, 9 * ms, 9 * ms], 99.0, 9.0),
        ];
        for (values, percent, expected) in cases {
            assert_eq!(of(values.iter().copied()).percentile_ms(percent), expected, "{values:?} {percent}");
        }
        let hundred = of(1..=100);
        assert_eq!((hundred.percentile_ms(50.0), hundred.percentile_ms(99.0)), (50e-6, 99e-6));
        assert!(Histogram::default().percentile_ms(50.0).is_nan());
    }

    #[test]
    fn merging_counts_all_of_both() {
        let mut merged = of([1, 500, 3]);
        merged.merge(&of([70_000, 2]));
        assert_eq!(merged, of([1, 2, 3, 500, 70_000]));
        assert_eq!((merged.total(), merged.largest_ms()), (5, 0.07));
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median([]).is_nan());
    }
}
