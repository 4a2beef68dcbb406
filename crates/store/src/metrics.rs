//! What a member did, counted as it happens, as Prometheus reads it.

use std::sync::atomic::{AtomicU64, Ordering};

use figures::{Histogram, family, single};

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
const LATENCIES: [f64; 9] = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.064, 0.256, 1.0];
/// From a state of a few kilobytes to one of gigabytes.
const SNAPSHOTS: [f64; 6] = [0.01, 0.05, 0.25, 1.0, 5.0, 25.0];

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
            family(out, name, "histogram", help);
            histogram.write(out, name, "");
        }
        let about = "The size of the last snapshot written to the disk";
        let size = self.snapshot_bytes.load(Ordering::Relaxed);
        single(out, "holdfast_store_snapshot_bytes", "gauge", about, size);
        for (name, help, counter) in [
            ("elections_started", "Elections in which this host wanted to lead", &self.elections_started),
            ("elections_won", "Elections that this host won", &self.elections_won),
            ("leader_changes", "How often this host saw another leader than before", &self.leader_changes),
            ("snapshots_failed", "Snapshots for which there was no room on the disk", &self.snapshots_failed),
            ("snapshots_sent", "Snapshots sent to other hosts in full", &self.snapshots_sent),
            ("snapshots_received", "Snapshots received from leaders", &self.snapshots_received),
        ] {
            let name = format!("holdfast_store_{name}_total");
            single(out, &name, "counter", help, counter.0.load(Ordering::Relaxed));
        }
    }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
