//! What a member did, counted as it happens, as Prometheus reads it.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a member of an embedded store counts.
#[derive(Debug)]
pub struct Metrics {
    /// Writes to the log, each with its sync.
    pub(crate) sync: Histogram,
    /// From a caller's request for a change to its answer.
    pub(crate) commit: Histogram,
    pub(crate) elections_started: Counter,
    pub(crate) elections_won: Counter,
    pub(crate) leader_changes: Counter,
    pub(crate) snapshot_saved: Histogram,
    pub(crate) snapshot_bytes: AtomicU64,
    pub(crate) snapshots_failed: Counter,
    pub(crate) snapshots_sent: Counter,
    pub(crate) snapshots_received: Counter,
}

/// From half a millisecond (a sync on a good disk) to a second, after which a member that waits is taken for lost.
const LATENCIES: &[Duration] = &[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(4),
    Duration::from_millis(8),
    Duration::from_millis(16),
    Duration::from_millis(64),
    Duration::from_millis(256),
    Duration::from_secs(1),
];
/// From a state of a few kilobytes to one of gigabytes.
const SNAPSHOTS: &[Duration] = &[
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(25),
];

impl Default for Metrics {
    fn default() -> Self {
        Metrics {
            sync: Histogram::new(LATENCIES),
            commit: Histogram::new(LATENCIES),
            elections_started: Counter::default(),
            elections_won: Counter::default(),
            leader_changes: Counter::default(),
            snapshot_saved: Histogram::new(SNAPSHOTS),
            snapshot_bytes: AtomicU64::new(0),
            snapshots_failed: Counter::default(),
            snapshots_sent: Counter::default(),
            snapshots_received: Counter::default(),
        }
    }
}

impl Metrics {
    /// Appends all of it in Prometheus' text format.
    pub fn write(&self, out: &mut String) {
        for (name, help, histogram) in [
            (
                "holdfast_store_log_sync_duration_seconds",
                "How long writes to the log and their syncs took",
                &self.sync,
            ),
            (
                "holdfast_store_commit_duration_seconds",
                "How long changes that this host asked for took until they were applied",
                &self.commit,
            ),
            (
                "holdfast_store_snapshot_save_duration_seconds",
                "How long it took to write snapshots to the disk",
                &self.snapshot_saved,
            ),
        ] {
            histogram.write(out, name, help);
        }
        let gauge = self.snapshot_bytes.load(Ordering::Relaxed);
        head(
            out,
            "holdfast_store_snapshot_bytes",
            "gauge",
            "The size of the last snapshot written to the disk",
        );
        let _ = writeln!(out, "holdfast_store_snapshot_bytes {gauge}");
        for (name, help, counter) in [
            ("elections_started", "Elections in which this host wanted to lead", &self.elections_started),
            ("elections_won", "Elections that this host won", &self.elections_won),
            ("leader_changes", "How often this host saw another leader than before", &self.leader_changes),
            ("snapshots_failed", "Snapshots for which there was no room on the disk", &self.snapshots_failed),
            ("snapshots_sent", "Snapshots sent to other hosts in full", &self.snapshots_sent),
            ("snapshots_received", "Snapshots received from leaders", &self.snapshots_received),
        ] {
            head(out, &format!("holdfast_store_{name}_total"), "counter", help);
            let _ = writeln!(out, "holdfast_store_{name}_total {}", counter.0.load(Ordering::Relaxed));
        }
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // A string takes everything.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// How often something happened.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// It happened once more.
    pub fn increase(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How long something took, each time.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [Duration],
    /// For each bound how often it took no longer than that, and longer than the bound before.
    counts: Vec<AtomicU64>,
    count: AtomicU64,
    micros: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [Duration]) -> Self {
        let counts = bounds.iter().map(|_| AtomicU64::new(0)).collect();
        Histogram { bounds, counts, count: AtomicU64::new(0), micros: AtomicU64::new(0) }
    }

    /// It took so long once more.
    pub fn observe(&self, took: Duration) {
        let bound = self.bounds.iter().position(|bound| took <= *bound);
        if let Some(count) = bound.and_then(|bound| self.counts.get(bound)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, out: &mut String, name: &str, help: &str) {
        head(out, name, "histogram", help);
        // Read first: what is observed meanwhile must not make a bucket larger than the whole.
        let (count, micros) = (self.count.load(Ordering::Relaxed), self.micros.load(Ordering::Relaxed));
        let mut below = 0;
        for (bound, here) in self.bounds.iter().zip(&self.counts) {
            below = (below + here.load(Ordering::Relaxed)).min(count);
            let _ = writeln!(out, "{name}_bucket{{le=\"{}\"}} {below}", bound.as_secs_f64());
        }
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(out, "{name}_sum {}\n{name}_count {count}", micros as f64 / 1e6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_written_in_buckets_that_hold_all_smaller_ones() {
        let metrics = Metrics::default();
        for micros in [400, 500, 3000, 2_000_000] {
            metrics.sync.observe(Duration::from_micros(micros));
        }
        metrics.elections_won.increase();
        let mut text = String::new();
        metrics.write(&mut text);
        for line in [
            "# TYPE holdfast_store_log_sync_duration_seconds histogram",
            "holdfast_store_log_sync_duration_seconds_bucket{le=\"0.0005\"} 2",
            "holdfast_store_log_sync_duration_seconds_bucket{le=\"0.002\"} 2",
            "holdfast_store_log_sync_duration_seconds_bucket{le=\"0.004\"} 3",
            "holdfast_store_log_sync_duration_seconds_bucket{le=\"1\"} 3",
            "holdfast_store_log_sync_duration_seconds_bucket{le=\"+Inf\"} 4",
            "holdfast_store_log_sync_duration_seconds_sum 2.0039",
            "holdfast_store_log_sync_duration_seconds_count 4",
            "holdfast_store_elections_won_total 1",
            "holdfast_store_elections_started_total 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
