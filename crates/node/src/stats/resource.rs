//! What this host and its containers use, as the kubelet tells it at `/metrics/resource` (KEP-1909): for the API's
//! `metrics.k8s.io`, and for upstream's metrics-server.

use std::fmt::Write;

use jiff::Timestamp;

use super::machine::Machine;
use crate::pods::PodHost;
use crate::runtime::Usage;

/// The metrics, as Prometheus reads them.
pub(crate) async fn resources(host: &PodHost) -> String {
    let (running, used) = (host.running.list(), host.runtime.usage().await);
    let node = tasks::blocking(tracing::info_span!("what the host uses"), Machine::read).await;
    let node = node.unwrap_or_default().usage;
    let at = host.clock.now().wall;
    let mut containers: Vec<Container> = used
        .into_iter()
        .filter_map(|(which, since, usage)| {
            let live = running.iter().find(|live| live.which == which)?;
            Some(Container {
                namespace: &live.namespace,
                pod: &live.pod,
                name: &live.which.container,
                since,
                usage,
            })
        })
        .collect();
    containers.sort_by_key(|container| (container.namespace, container.pod, container.name));
    text(node, &containers, at)
}

struct Container<'a> {
    namespace: &'a str,
    pod: &'a str,
    name: &'a str,
    since: Timestamp,
    usage: Usage,
}

fn text(node: Usage, containers: &[Container<'_>], at: Timestamp) -> String {
    let (mut out, now) = (String::new(), at.as_millisecond());
    let mut family = |name: &str, kind: &str, help: &str, lines: Vec<(String, f64)>| {
        let _ = write!(out, "# HELP {name} [STABLE] {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in lines {
            let _ = writeln!(out, "{name}{labels} {value} {now}");
        }
    };
    let of_container = |value: fn(&Container<'_>) -> f64| {
        let line = |c: &Container<'_>| {
            (
                format!("{{container=\"{}\",namespace=\"{}\",pod=\"{}\"}}", c.name, c.namespace, c.pod),
                value(c),
            )
        };
        containers.iter().map(line).collect()
    };
    let of_pod = |value: fn(&Container<'_>) -> f64| {
        let pods = containers.chunk_by(|a, b| (a.namespace, a.pod) == (b.namespace, b.pod));
        let line = |of: &[Container<'_>]| {
            (
                format!("{{namespace=\"{}\",pod=\"{}\"}}", of[0].namespace, of[0].pod),
                of.iter().map(value).sum(),
            )
        };
        pods.map(line).collect()
    };
    let cpu = |container: &Container<'_>| container.usage.cpu.as_secs_f64();
    let memory = |container: &Container<'_>| container.usage.memory as f64;
    let help = "Cumulative cpu time consumed by the container in core-seconds";
    family("container_cpu_usage_seconds_total", "counter", help, of_container(cpu));
    let help = "Current working set of the container in bytes";
    family("container_memory_working_set_bytes", "gauge", help, of_container(memory));
    let help = "Start time of the container since unix epoch in seconds";
    let since = |container: &Container<'_>| container.since.as_millisecond() as f64 / 1000.0;
    family("container_start_time_seconds", "gauge", help, of_container(since));
    let help = "Cumulative cpu time consumed by the node in core-seconds";
    family("node_cpu_usage_seconds_total", "counter", help, vec![(String::new(), node.cpu.as_secs_f64())]);
    let help = "Current working set of the node in bytes";
    family("node_memory_working_set_bytes", "gauge", help, vec![(String::new(), node.memory as f64)]);
    let help = "Cumulative cpu time consumed by the pod in core-seconds";
    family("pod_cpu_usage_seconds_total", "counter", help, of_pod(cpu));
    let help = "Current working set of the pod in bytes";
    family("pod_memory_working_set_bytes", "gauge", help, of_pod(memory));
    family(
        "resource_scrape_error",
        "gauge",
        "1 if there was an error while getting container metrics, 0 otherwise",
        vec![(String::new(), 0.0)],
    );
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kubelets_words_are_used() {
        let at = Timestamp::from_millisecond(1_800_000_000_123).unwrap();
        let container = |pod, name, millis, memory| Container {
            namespace: "d",
            pod,
            name,
            since: Timestamp::from_second(1_700_000_000).unwrap(),
            usage: Usage { cpu: Duration::from_millis(millis), memory, ..Usage::default() },
        };
        let containers =
            [container("p", "a", 1500, 10), container("p", "b", 250, 5), container("q", "a", 0, 1)];
        let node = Usage { cpu: Duration::from_secs(9), memory: 99, ..Usage::default() };
        let text = text(node, &containers, at);
        for line in [
            "# TYPE container_cpu_usage_seconds_total counter",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"d\",pod=\"p\"} 1.5 1800000000123",
            "container_memory_working_set_bytes{container=\"b\",namespace=\"d\",pod=\"p\"} 5 1800000000123",
            "container_start_time_seconds{container=\"a\",namespace=\"d\",pod=\"q\"} 1700000000 1800000000123",
            "node_cpu_usage_seconds_total 9 1800000000123",
            "node_memory_working_set_bytes 99 1800000000123",
            "pod_cpu_usage_seconds_total{namespace=\"d\",pod=\"p\"} 1.75 1800000000123",
            "pod_memory_working_set_bytes{namespace=\"d\",pod=\"p\"} 15 1800000000123",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }
}
