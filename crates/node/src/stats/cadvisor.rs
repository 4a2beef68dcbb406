//! `/metrics/cadvisor`: the figures that dashboards and alerts look at, under cAdvisor's names and labels.

use std::fmt::Write;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{Gathered, PodFigures, gather};
use crate::container::in_units;
use crate::pod::{container, container_id};
use crate::pods::PodHost;
use crate::runtime::Usage;

/// The period in which quotas are counted, in microseconds.
const PERIOD: i128 = 100_000;

/// The metrics, as Prometheus reads them.
pub(crate) async fn cadvisor(host: &Arc<PodHost>) -> String {
    text(&gather(host).await)
}

/// Something that is counted: a container, a pod, or the machine.
struct Subject {
    labels: String,
    usage: Usage,
    /// In seconds since 1970.
    since: Option<f64>,
    /// What it wrote, in bytes.
    written: Option<u64>,
    limits: Limits,
}

#[derive(Default)]
struct Limits {
    memory: Option<i128>,
    cpu: Option<i128>,
    request: Option<i128>,
}

fn text(all: &Gathered) -> String {
    let subjects = subjects(all);
    let (mut out, now) = (String::new(), all.at.as_millisecond());
    let mut family =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&Subject) -> Option<f64>, more: &str| {
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
            for subject in &subjects {
                if let Some(value) = value(subject) {
                    let _ = writeln!(out, "{name}{{{}{more}}} {value} {now}", subject.labels);
                }
            }
        };
    let of = |value: fn(&Usage) -> u64| move |subject: &Subject| Some(value(&subject.usage) as f64);
    let limit =
        |value: fn(&Limits) -> Option<i128>| move |subject: &Subject| Some(value(&subject.limits)? as f64);
    family(
        "container_cpu_usage_seconds_total",
        "counter",
        "Cumulative cpu time consumed in seconds.",
        &|subject| Some(subject.usage.cpu.as_secs_f64()),
        ",cpu=\"total\"",
    );
    let help = "Number of bytes that are consumed by the container on this filesystem.";
    family("container_fs_usage_bytes", "gauge", help, &|subject| Some(subject.written? as f64), "");
    let help = "Size of RSS in bytes.";
    family("container_memory_rss", "gauge", help, &of(|usage| usage.rss), "");
    let help = "Current memory usage in bytes, including all memory regardless of when it was accessed";
    family("container_memory_usage_bytes", "gauge", help, &of(|usage| usage.with_files), "");
    let help = "Current working set in bytes.";
    family("container_memory_working_set_bytes", "gauge", help, &of(|usage| usage.memory), "");
    let help = "Cumulative count of memory allocation failures.";
    let minor = ",failure_type=\"pgfault\",scope=\"container\"";
    family("container_memory_failures_total", "counter", help, &of(|usage| usage.faults), minor);
    let help = "Number of processes running inside the container.";
    family("container_processes", "gauge", help, &of(|usage| usage.processes), "");
    let help = "CPU period of the container.";
    let period = |subject: &Subject| subject.limits.cpu.map(|_| PERIOD as f64);
    family("container_spec_cpu_period", "gauge", help, &period, "");
    let help = "CPU quota of the container.";
    family("container_spec_cpu_quota", "gauge", help, &limit(|limits| Some(limits.cpu? * PERIOD / 1000)), "");
    let help = "CPU share of the container.";
    let shares = limit(|limits| Some((limits.request? * 1024 / 1000).max(2)));
    family("container_spec_cpu_shares", "gauge", help, &shares, "");
    let help = "Memory limit for the container.";
    family("container_spec_memory_limit_bytes", "gauge", help, &limit(|limits| limits.memory), "");
    let help = "Start time of the container since unix epoch in seconds.";
    family("container_start_time_seconds", "gauge", help, &|subject| subject.since, "");
    let help = "Number of logical CPU cores.";
    figures::single(&mut out, "machine_cpu_cores", "gauge", help, all.cpus / 1000);
    let help = "Amount of memory installed on the machine.";
    figures::single(&mut out, "machine_memory_bytes", "gauge", help, all.machine.memory);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    figures::single(&mut out, "container_scrape_error", "gauge", help, 0);
    out
}

fn subjects(all: &Gathered) -> Vec<Subject> {
    let seconds = |at: jiff::Timestamp| at.as_millisecond() as f64 / 1000.0;
    let mut found = vec![Subject {
        labels: labels("", "/", "", "", &Pod::default()),
        usage: all.machine.usage,
        since: all.machine.since.map(seconds),
        written: None,
        limits: Limits::default(),
    }];
    for figures in &all.pods {
        let PodFigures { pod, containers, storage, .. } = figures;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let place = format!("/kubepods/pod{uid}");
        let since = containers.iter().map(|one| one.since).min();
        let own = Subject {
            labels: labels("", &place, "", "", pod),
            usage: figures.usage(),
            since: since.map(seconds),
            written: None,
            limits: Limits::default(),
        };
        found.push(own);
        for one in containers {
            let name = one.which.container.as_str();
            let spec = container(pod, name);
            let image = spec.as_ref().and_then(|spec| spec.image.as_deref()).unwrap_or_default();
            let (id, inside) = (container_id(uid, name, one.which.attempt), format!("{place}/{name}"));
            let written = storage.as_ref().and_then(|storage| storage.containers.get(name));
            found.push(Subject {
                labels: labels(name, &inside, image, &id, pod),
                usage: one.usage,
                since: Some(seconds(one.since)),
                written: written.map(|(root, _)| root.bytes),
                limits: spec.map(|spec| limits(&spec)).unwrap_or_default(),
            });
        }
    }
    found
}

fn limits(spec: &Container) -> Limits {
    let resources = spec.resources.as_ref();
    let limit = |name: &str, unit: &str| in_units(&resources?.limits.as_ref()?.get(name)?.0, unit);
    let request = |name: &str, unit: &str| in_units(&resources?.requests.as_ref()?.get(name)?.0, unit);
    Limits { memory: limit("memory", "1"), cpu: limit("cpu", "1m"), request: request("cpu", "1m") }
}

/// cAdvisor's labels, as its kubelet gives them.
fn labels(container: &str, place: &str, image: &str, id: &str, pod: &Pod) -> String {
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    let (namespace, name) = (of(&pod.metadata.namespace), of(&pod.metadata.name));
    let clean = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!(
        "container=\"{container}\",id=\"{place}\",image=\"{}\",name=\"{id}\",namespace=\"{namespace}\",pod=\"{name}\"",
        clean(image)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use serde_json::json;

    use super::super::ContainerFigures;
    use super::super::disk::Tree;
    use super::super::machine::Machine;
    use super::super::storage::PodStorage;
    use super::*;
    use crate::runtime::Which;

    #[test]
    fn dashboards_find_cadvisors_names() {
        let pod = json!({"metadata": {"name": "p", "namespace": "d", "uid": "u"}, "spec": {"containers": [
            {"name": "a", "image": "box:\"1\"", "resources": {"limits": {"memory": "1Ki", "cpu": "1500m"},
                "requests": {"cpu": "500m"}}}]}});
        let usage = Usage {
            cpu: Duration::from_millis(1500),
            memory: 10,
            with_files: 20,
            rss: 5,
            processes: 3,
            ..Usage::default()
        };
        let which = Which { uid: "u".into(), container: "a".into(), attempt: 2 };
        let since = Timestamp::from_second(1_700_000_000).unwrap();
        let storage = PodStorage {
            containers: [(
                "a".to_owned(),
                (Tree { bytes: 77, inodes: 1, ..Tree::default() }, Tree::default()),
            )]
            .into(),
            ..PodStorage::default()
        };
        let all = Gathered {
            at: Timestamp::from_millisecond(1_800_000_000_123).unwrap(),
            machine: Machine { memory: 4096, ..Machine::default() },
            cpus: 2000,
            pods: vec![PodFigures {
                pod: serde_json::from_value::<Pod>(pod).unwrap().into(),
                containers: vec![ContainerFigures { which, since, usage, rate: 0 }],
                memory: None,
                storage: Some(storage.into()),
            }],
            ..Gathered::default()
        };
        let text = text(&all);
        let own = "container=\"a\",id=\"/kubepods/podu/a\",image=\"box:\\\"1\\\"\",name=\"host://u/a/2\",namespace=\"d\",pod=\"p\"";
        let whole = "container=\"\",id=\"/kubepods/podu\",image=\"\",name=\"\",namespace=\"d\",pod=\"p\"";
        for line in [
            format!("container_cpu_usage_seconds_total{{{own},cpu=\"total\"}} 1.5 1800000000123"),
            format!("container_cpu_usage_seconds_total{{{whole},cpu=\"total\"}} 1.5 1800000000123"),
            format!("container_memory_working_set_bytes{{{own}}} 10 1800000000123"),
            format!("container_memory_usage_bytes{{{own}}} 20 1800000000123"),
            format!("container_memory_rss{{{whole}}} 5 1800000000123"),
            format!("container_fs_usage_bytes{{{own}}} 77 1800000000123"),
            format!("container_spec_memory_limit_bytes{{{own}}} 1024 1800000000123"),
            format!("container_spec_cpu_quota{{{own}}} 150000 1800000000123"),
            format!("container_spec_cpu_shares{{{own}}} 512 1800000000123"),
            format!("container_start_time_seconds{{{own}}} 1700000000 1800000000123"),
            format!("container_processes{{{own}}} 3 1800000000123"),
            "machine_cpu_cores 2".into(),
            "machine_memory_bytes 4096".into(),
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
        assert!(!text.contains(&format!("container_spec_memory_limit_bytes{{{whole}")), "{text}");
    }
}
