//! What happens at the gate, as Prometheus reads it, under upstream's names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use figures::{Histogram, family, sample};

use crate::Fairness;
use crate::gate::{Refusal, Standing};

/// Where the histogram of waits is cut, in seconds: some of upstream's bounds.
const BOUNDS: [f64; 8] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.5, 2.0, 15.0];

/// What is counted, by level and schema.
#[derive(Debug, Default)]
pub(crate) struct Counts(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Count>>);

#[derive(Debug)]
pub(crate) struct Count {
    pub(crate) waiting: u64,
    pub(crate) running: u64,
    started: u64,
    refused: BTreeMap<Refusal, u64>,
    /// Waits of those who were let in, and of those who weren't.
    waits: [Histogram; 2],
}

impl Default for Count {
    fn default() -> Self {
        let waits = || Histogram::new(BOUNDS);
        Count { waiting: 0, running: 0, started: 0, refused: BTreeMap::new(), waits: [waits(), waits()] }
    }
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
        self.waits[usize::from(let_in)].observe(waited);
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
            family(out, &full, kind, help);
            for (labels, count) in inner.counts.iter() {
                let number = match name {
                    "current_inqueue_requests" => count.waiting,
                    "current_executing_requests" => count.running,
                    "dispatched_requests_total" => count.started,
                    "rejected_requests_total" => {
                        for (refusal, times) in &count.refused {
                            let labels = format!(r#"{labels},reason="{}""#, refusal.name());
                            sample(out, &full, &labels, times);
                        }
                        continue;
                    }
                    "request_wait_duration_seconds" => {
                        let waited = count.waits.iter().zip(["false", "true"]);
                        for (waits, execute) in waited.filter(|(waits, _)| waits.count() > 0) {
                            waits.write(out, &full, &format!(r#"{labels},execute="{execute}""#));
                        }
                        continue;
                    }
                    _ => continue,
                };
                sample(out, &full, &labels, number);
            }
            if name == "current_executing_seats" {
                for standing in inner.gate.standing() {
                    sample(out, &full, &level(&standing), standing.used);
                }
            }
        }
        type Limit = fn(&Standing<'_>) -> u32;
        let limits: [(&str, &str, Limit); 4] = [
            ("nominal_limit_seats", "Seats that a level has of its own", |s| s.seats.nominal),
            ("lower_limit_seats", "Seats that a level never lends", |s| s.seats.lower),
            ("upper_limit_seats", "The most seats that a level ever has", |s| s.seats.upper),
            ("current_limit_seats", "Seats that a level could have now", |s| s.current),
        ];
        for (name, help, limit) in limits {
            let full = format!("apiserver_flowcontrol_{name}");
            family(out, &full, "gauge", help);
            for standing in inner.gate.standing() {
                sample(out, &full, &level(&standing), limit(&standing));
            }
        }
    }
}

fn level(standing: &Standing<'_>) -> String {
    format!(r#"priority_level="{}""#, standing.level)
}
