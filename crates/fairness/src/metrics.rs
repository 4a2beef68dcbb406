//! What happens at the gate, as Prometheus reads it, under upstream's names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use crate::Fairness;
use crate::gate::Refusal;

/// Where the histogram of waits is cut, in seconds: some of upstream's bounds.
const BOUNDS: [f64; 8] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0, 15.0];

/// What is counted, by level and schema.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Count>>);

#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) waiting: u64,
    pub(crate) running: u64,
    started: u64,
    refused: BTreeMap<Refusal, u64>,
    /// Waits of those who were let in, and of those who weren't.
    waits: [Waits; 2],
}

#[derive(Debug, Default)]
struct Waits {
    buckets: [u64; BOUNDS.len()],
    count: u64,
    seconds: f64,
}

impl Counts {
    pub(crate) fn of(&mut self, level: &Arc<str>, schema: &Arc<str>) -> &mut Count {
        // A key is made for the first request of its kind alone.
        if !self.0.get(level).is_some_and(|schemas| schemas.contains_key(schema)) {
            self.0.entry(level.clone()).or_default().insert(schema.clone(), Count::default());
        }
        self.0.entry(level.clone()).or_default().entry(schema.clone()).or_default()
    }

    fn iter(&self) -> impl Iterator<Item = (String, &Count)> {
        self.0.iter().flat_map(|(level, schemas)| {
            schemas.iter().map(move |(schema, count)| {
                (format!(r#"priority_level="{level}",flow_schema="{schema}""#), count)
            })
        })
    }
}

impl Count {
    pub(crate) fn started(&mut self, waited: Duration) {
        self.running += 1;
        self.started += 1;
        self.waited(waited, true);
    }

    pub(crate) fn refused(&mut self, refusal: Refusal) {
        *self.refused.entry(refusal).or_default() += 1;
    }

    pub(crate) fn waited(&mut self, waited: Duration, let_in: bool) {
        let (waits, seconds) = (&mut self.waits[usize::from(let_in)], waited.as_secs_f64());
        waits.count += 1;
        waits.seconds += seconds;
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            waits.buckets[bucket] += 1;
        }
    }
}

const NAMES: [(&str, &str, &str); 6] = [
    ("current_inqueue_requests", "gauge", "Requests that wait for a seat"),
    ("current_executing_requests", "gauge", "Requests that run"),
    ("dispatched_requests_total", "counter", "Requests that were let in"),
    ("rejected_requests_total", "counter", "Requests that were refused, by why"),
    ("request_wait_duration_seconds", "histogram", "How long requests waited, by whether they were let in"),
    ("current_executing_seats", "gauge", "Seats that are taken"),
];

impl Fairness {
    /// Writes what happened at the gate, in Prometheus' text format.
    pub fn write_metrics(&self, out: &mut String) {
        let inner = self.lock();
        for (name, kind, help) in NAMES {
            let full = format!("apiserver_flowcontrol_{name}");
            let _ = writeln!(out, "# HELP {full} {help}\n# TYPE {full} {kind}");
            for (labels, count) in inner.counts.iter() {
                let number = match name {
                    "current_inqueue_requests" => count.waiting,
                    "current_executing_requests" => count.running,
                    "dispatched_requests_total" => count.started,
                    "rejected_requests_total" => {
                        for (refusal, times) in &count.refused {
                            let _ =
                                writeln!(out, r#"{full}{{{labels},reason="{}"}} {times}"#, refusal.name());
                        }
                        continue;
                    }
                    "request_wait_duration_seconds" => {
                        for (waits, execute) in count.waits.iter().zip(["false", "true"]) {
                            waits.write(out, &full, &format!(r#"{labels},execute="{execute}""#));
                        }
                        continue;
                    }
                    _ => continue,
                };
                let _ = writeln!(out, "{full}{{{labels}}} {number}");
            }
            if name == "current_executing_seats" {
                for standing in inner.gate.standing() {
                    let _ =
                        writeln!(out, r#"{full}{{priority_level="{}"}} {}"#, standing.level, standing.used);
                }
            }
        }
        type Limit = fn(&crate::gate::Standing<'_>) -> u32;
        let limits: [(&str, &str, Limit); 4] = [
            ("nominal_limit_seats", "Seats that a level has of its own", |s| s.seats.nominal),
            ("lower_limit_seats", "Seats that a level never lends", |s| s.seats.lower),
            ("upper_limit_seats", "The most seats that a level ever has", |s| s.seats.upper),
            ("current_limit_seats", "Seats that a level could have now", |s| s.current),
        ];
        for (name, help, limit) in limits {
            let full = format!("apiserver_flowcontrol_{name}");
            let _ = writeln!(out, "# HELP {full} {help}\n# TYPE {full} gauge");
            for standing in inner.gate.standing() {
                let _ =
                    writeln!(out, r#"{full}{{priority_level="{}"}} {}"#, standing.level, limit(&standing));
            }
        }
    }
}

impl Waits {
    fn write(&self, out: &mut String, name: &str, labels: &str) {
        if self.count == 0 {
            return;
        }
        let mut below = 0;
        for (bound, count) in BOUNDS.iter().zip(self.buckets) {
            below += count;
            let _ = writeln!(out, r#"{name}_bucket{{{labels},le="{bound}"}} {below}"#);
        }
        let _ = writeln!(out, r#"{name}_bucket{{{labels},le="+Inf"}} {}"#, self.count);
        let _ = writeln!(out, "{name}_sum{{{labels}}} {}", self.seconds);
        let _ = writeln!(out, "{name}_count{{{labels}}} {}", self.count);
    }
}
