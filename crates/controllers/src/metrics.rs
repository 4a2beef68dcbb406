//! How much there is to do, as Prometheus reads it: under upstream's names (`k8s.io/component-base/metrics/prometheus/workqueue`)
//! where they mean the same. Upstream has a queue a controller, and its name says which; here a class of urgency has one.

use std::time::Instant;

use figures::{family, sample};

use crate::controller::Urgency;
use crate::queue::Load;

/// A figure: its name, its type, its help, and where it comes from.
type Figure<'a> = (&'static str, &'static str, &'static str, &'a dyn Fn(&Load) -> f64);

/// Appends the figures of `load` as text. There are none while this member doesn't lead.
pub fn write_metrics(out: &mut String, load: &[Load], now: Instant) {
    if load.is_empty() {
        return;
    }
    let waited =
        |load: &Load| load.since.map_or(0.0, |since| now.saturating_duration_since(since).as_secs_f64());
    let figures: [Figure<'_>; 5] = [
        ("workqueue_depth", "gauge", "Keys that are due and wait for their turn", &|load| load.due as f64),
        ("workqueue_adds_total", "counter", "How often a key became due", &|load| load.added as f64),
        ("workqueue_retries_total", "counter", "How often a key was put off to be tried again", &|load| {
            load.retried as f64
        }),
        (
            "holdfast_workqueue_oldest_seconds",
            "gauge",
            "How long the first of the keys that are due has waited",
            &waited,
        ),
        ("holdfast_workqueue_working", "gauge", "Keys that are being written for", &|load| {
            load.at_work as f64
        }),
    ];
    for (name, kind, help, figure) in figures {
        family(out, name, kind, help);
        for load in load {
            sample(out, name, &format!(r#"name="{}""#, name_of(load.urgency)), figure(load));
        }
    }
}

fn name_of(urgency: Urgency) -> &'static str {
    match urgency {
        Urgency::Traffic => "traffic",
        Urgency::Workload => "workload",
        Urgency::Upkeep => "upkeep",
        Urgency::Background => "background",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_class_has_its_figures() {
        #[allow(clippy::disallowed_methods)] // Any moment will do.
        let now = Instant::now();
        let since = Some(now - Duration::from_millis(1500));
        let traffic = Load { urgency: Urgency::Traffic, due: 3, since, at_work: 2, added: 40, retried: 4 };
        let upkeep = Load { urgency: Urgency::Upkeep, due: 0, since: None, at_work: 0, added: 7, retried: 0 };
        let mut out = String::new();
        write_metrics(&mut out, &[], now);
        assert_eq!(out, "", "nobody who doesn't lead has a queue");
        write_metrics(&mut out, &[traffic, upkeep], now);
        for line in [
            "# TYPE workqueue_depth gauge",
            r#"workqueue_depth{name="traffic"} 3"#,
            r#"workqueue_depth{name="upkeep"} 0"#,
            "# TYPE workqueue_adds_total counter",
            r#"workqueue_adds_total{name="traffic"} 40"#,
            r#"workqueue_retries_total{name="traffic"} 4"#,
            r#"holdfast_workqueue_oldest_seconds{name="traffic"} 1.5"#,
            r#"holdfast_workqueue_oldest_seconds{name="upkeep"} 0"#,
            r#"holdfast_workqueue_working{name="traffic"} 2"#,
        ] {
            assert!(out.lines().any(|told| told == line), "{line}:\n{out}");
        }
    }
}
