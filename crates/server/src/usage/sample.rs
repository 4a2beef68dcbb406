//! One look at a host: what its agent tells of the machine and of its containers, in Prometheus' text.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// A container: namespace, pod, name.
pub(super) type Container = (String, String, String);

/// What was used up to a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Used {
    /// When that was.
    pub at: Timestamp,
    /// Seconds of processors since it began.
    pub cpu: f64,
    /// The working set in bytes.
    pub memory: f64,
    /// When it began, if the host says so.
    pub since: Option<Timestamp>,
}

/// What is used of processors and memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate {
    /// Until when.
    pub at: Timestamp,
    /// Over which time.
    pub window: Duration,
    /// Billionths of a processor.
    pub nanocores: u64,
    /// Bytes.
    pub memory: u64,
}

/// What a host and its containers have used.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Sample {
    pub(super) node: Option<Used>,
    pub(super) containers: BTreeMap<Container, Used>,
}

impl Sample {
    /// Reads what a host told at about a time; what is not understood is passed over.
    pub(super) fn parse(text: &str, now: Timestamp) -> Self {
        let mut sample = Sample::default();
        let new = || Used { at: now, cpu: f64::NAN, memory: f64::NAN, since: None };
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, labels, value, at)) = split(line) else { continue };
            let used = match name {
                "node_cpu_usage_seconds_total" | "node_memory_working_set_bytes" => {
                    sample.node.get_or_insert_with(new)
                }
                "container_cpu_usage_seconds_total"
                | "container_memory_working_set_bytes"
                | "container_start_time_seconds" => {
                    let [Some(container), Some(namespace), Some(pod)] =
                        ["container", "namespace", "pod"].map(|name| label(labels, name))
                    else {
                        continue;
                    };
                    sample.containers.entry((namespace, pod, container)).or_insert_with(new)
                }
                _ => continue,
            };
            match name {
                "node_cpu_usage_seconds_total" | "container_cpu_usage_seconds_total" => {
                    used.cpu = value;
                    used.at = at.unwrap_or(now);
                }
                "container_start_time_seconds" => {
                    used.since = Timestamp::from_millisecond((value * 1000.0) as i64).ok();
                }
                _ => used.memory = value,
            }
        }
        let is_whole = |used: &Used| used.cpu.is_finite() && used.memory.is_finite();
        sample.node = sample.node.filter(is_whole);
        sample.containers.retain(|_, used| is_whole(used));
        sample
    }
}

/// What was used between two looks; nothing if that can't be said. What began in between has used all that since it began.
pub(super) fn between(before: Option<&Used>, last: &Used) -> Option<Rate> {
    let (from, had) = match before.filter(|before| before.since == last.since) {
        Some(before) => (before.at, before.cpu),
        None => (last.since?, 0.0),
    };
    let window = Duration::try_from(last.at.duration_since(from)).ok().filter(|window| !window.is_zero())?;
    let nanocores = (last.cpu - had) / window.as_secs_f64() * 1e9;
    (nanocores >= 0.0).then_some(Rate {
        at: last.at,
        window,
        nanocores: nanocores as u64,
        memory: last.memory as u64,
    })
}

/// Name, labels, value and time of a line.
fn split(line: &str) -> Option<(&str, &str, f64, Option<Timestamp>)> {
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => rest.split_once('}')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next()?.parse().ok()?;
    let at = words.next().and_then(|at| at.parse().ok()).and_then(|at| Timestamp::from_millisecond(at).ok());
    Some((name, labels, value, at))
}

/// The value of a label. Names of pods, namespaces and containers have nothing in them that would be written otherwise.
fn label(labels: &str, name: &str) -> Option<String> {
    let all = labels.split(',').filter_map(|label| label.split_once('='));
    let value = all.into_iter().find(|(known, _)| known.trim() == name)?.1;
    Some(value.trim().strip_prefix('"')?.strip_suffix('"')?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn what_agents_and_kubelets_say_is_read() {
        let text = "# TYPE node_cpu_usage_seconds_total counter\n\
            node_cpu_usage_seconds_total 12.5 1800000002000\n\
            node_memory_working_set_bytes 2.5e+09 1800000002000\n\
            container_cpu_usage_seconds_total{container=\"c\",namespace=\"d\",pod=\"p\"} 4.7\n\
            container_memory_working_set_bytes{container=\"c\",namespace=\"d\",pod=\"p\"} 1024 1800000001000\n\
            container_start_time_seconds{container=\"c\",namespace=\"d\",pod=\"p\"} 1.79999e+09\n\
            container_cpu_usage_seconds_total{container=\"half\",namespace=\"d\",pod=\"p\"} 1\n\
            container_cpu_usage_seconds_total{nonsense} 1\nnonsense\nother 1 2 3\n";
        let sample = Sample::parse(text, at(9));
        assert_eq!(sample.node, Some(Used { at: at(2), cpu: 12.5, memory: 2.5e9, since: None }));
        let since = Timestamp::from_second(1_799_990_000).ok();
        let used = Used { at: at(9), cpu: 4.7, memory: 1024.0, since };
        let container = ("d".to_owned(), "p".to_owned(), "c".to_owned());
        assert_eq!(sample.containers, BTreeMap::from([(container, used)]));
    }

    #[test]
    fn a_rate_is_the_difference_of_two_looks() {
        let used = |second, cpu, since| Used { at: at(second), cpu, memory: 7.0, since };
        let rate = |before: Option<Used>, last: Used| {
            between(before.as_ref(), &last).map(|rate| (rate.nanocores, rate.window.as_secs()))
        };
        let old = Some(at(-100));
        assert_eq!(rate(Some(used(0, 10.0, old)), used(15, 17.5, old)), Some((500_000_000, 15)));
        assert_eq!(rate(Some(used(0, 10.0, None)), used(15, 10.0, None)), Some((0, 15)));
        // It was started anew in between.
        assert_eq!(rate(Some(used(0, 10.0, old)), used(15, 5.0, Some(at(5)))), Some((500_000_000, 10)));
        assert_eq!(rate(None, used(15, 5.0, Some(at(5)))), Some((500_000_000, 10)));
        // Nobody can say.
        assert_eq!(rate(None, used(15, 5.0, None)), None);
        assert_eq!(rate(Some(used(0, 10.0, None)), used(15, 5.0, None)), None);
        assert_eq!(rate(Some(used(15, 1.0, None)), used(15, 5.0, None)), None);
    }
}
