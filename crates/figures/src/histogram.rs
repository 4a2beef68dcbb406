//! How long something took, each time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::sample;

/// How long something took, each time. Several threads may count at once.
#[derive(Debug)]
pub struct Histogram {
    /// Each bound in seconds, rising, and how often it took no longer than that, and longer than the bound before.
    buckets: Vec<(f64, AtomicU64)>,
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    /// One with these bounds in seconds, which rise.
    pub fn new(bounds: impl IntoIterator<Item = f64>) -> Self {
        let buckets = bounds.into_iter().map(|bound| (bound, AtomicU64::new(0))).collect();
        Histogram { buckets, count: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    /// One with `bounds` bounds, the first at `first` seconds, each further one twice as large.
    pub fn doubling(first: f64, bounds: i32) -> Self {
        Histogram::new((0..bounds).map(|power| first * 2_f64.powi(power)))
    }

    /// It took so long once more.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some((_, count)) = self.buckets.iter().find(|(bound, _)| seconds <= *bound) {
            count.fetch_add(1, Relaxed);
        }
        self.count.fetch_add(1, Relaxed);
        self.micros.fetch_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX), Relaxed);
    }

    /// How often it happened.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Adds its figures to a family of this name, with labels as of [`sample`].
    pub fn write(&self, out: &mut String, name: &str, labels: &str) {
        let with = |bound: &str| match labels {
            "" => format!(r#"le="{bound}""#),
            labels => format!(r#"{labels},le="{bound}""#),
        };
        // Read first: what is observed meanwhile must not make a bucket larger than the whole.
        let (count, micros) = (self.count(), self.micros.load(Relaxed));
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, here) in &self.buckets {
            below = (below + here.load(Relaxed)).min(count);
            sample(out, &bucket, &with(&bound.to_string()), below);
        }
        sample(out, &bucket, &with("+Inf"), count);
        sample(out, &format!("{name}_sum"), labels, micros as f64 / 1e6);
        sample(out, &format!("{name}_count"), labels, count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_all_smaller_ones() {
        let histogram = Histogram::doubling(0.001, 3);
        for micros in [1_000, 1_001, 3_999, 4_000, 4_001] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut out = String::new();
        histogram.write(&mut out, "x", "");
        let expected = "x_bucket{le=\"0.001\"} 1\nx_bucket{le=\"0.002\"} 2\nx_bucket{le=\"0.004\"} 4\n\
                        x_bucket{le=\"+Inf\"} 5\nx_sum 0.014001\nx_count 5\n";
        assert_eq!(out, expected);
    }
}
