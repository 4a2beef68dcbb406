//! `/metrics`: what the server did and holds, as Prometheus reads it, under upstream's names where it has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fairness::Fairness;
use figures::{Histogram, family, sample, single};
use store::{Event, KeyRange, Revision, State, Store};

use crate::http::response::bytes;
use crate::http::{Body, Target};

/// Where the histogram of durations is cut, in seconds: every third of upstream's bounds.
const BOUNDS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 60.0];
/// The text format of Prometheus.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a request was about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    verb: &'static str,
    group: String,
    version: String,
    resource: String,
    subresource: String,
    scope: &'static str,
}

impl Labels {
    fn of(verb: &'static str, target: &Target) -> Self {
        let resource = target.resource;
        let scope = match (target.name.is_empty(), target.namespace.is_empty()) {
            (false, _) => "resource",
            (true, false) => "namespace",
            (true, true) => "cluster",
        };
        Labels {
            verb,
            group: resource.group.to_string(),
            version: resource.version.to_string(),
            resource: resource.plural.to_string(),
            subresource: target.subresource.clone(),
            scope,
        }
    }

    fn text(&self) -> String {
        let Labels { verb, group, version, resource, subresource, scope } = self;
        let verb = match *verb {
            "create" => "POST".to_owned(),
            "update" => "PUT".to_owned(),
            other => other.to_ascii_uppercase(),
        };
        format!(
            r#"verb="{verb}",group="{group}",version="{version}",resource="{resource}",subresource="{subresource}",scope="{scope}",component="apiserver""#
        )
    }
}

#[derive(Debug)]
struct Series {
    codes: BTreeMap<u16, u64>,
    took: Histogram,
}

impl Default for Series {
    fn default() -> Self {
        Series { codes: BTreeMap::new(), took: Histogram::new(BOUNDS) }
    }
}

/// Appends what another part of the process measures, as Prometheus reads it.
pub type Measure = Box<dyn Fn(&mut String) + Send + Sync>;

/// What others measure.
#[derive(Default)]
struct Others(Vec<Measure>);

impl fmt::Debug for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Others").field(&self.0.len()).finish()
    }
}

/// What is counted.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    others: Others,
    requests: Mutex<BTreeMap<Labels, Series>>,
    objects: Mutex<Objects>,
    running: [AtomicI64; 3],
}

/// What is running, by kind.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Running {
    Reading,
    Changing,
    Watching,
}

/// One thing that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Counted(Arc<Metrics>, Running);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.running[self.1 as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Nothing is counted yet; `others` are asked whenever this is read.
    pub(crate) fn new(others: Vec<Measure>) -> Self {
        Metrics { others: Others(others), ..Metrics::default() }
    }

    /// Counts something as running.
    pub(crate) fn running(self: &Arc<Self>, what: Running) -> Counted {
        self.running[what as usize].fetch_add(1, Ordering::Relaxed);
        Counted(self.clone(), what)
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, verb: &'static str, target: &Target, code: u16, took: Duration) {
        let labels = Labels::of(verb, target);
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = requests.entry(labels).or_default();
        *series.codes.entry(code).or_default() += 1;
        // How long a watch runs is the client's choice.
        if verb != "watch" {
            series.took.observe(took);
        }
    }

    /// All of it as text.
    pub(crate) fn text(&self, store: &dyn Store, fairness: &Fairness) -> http::Response<Body> {
        let mut out = String::new();
        self.write_requests(&mut out);
        fairness.write_metrics(&mut out);
        let running = |what: Running| self.running[what as usize].load(Ordering::Relaxed);
        let name = "apiserver_current_inflight_requests";
        family(&mut out, name, "gauge", "Requests being answered");
        sample(&mut out, name, r#"request_kind="readOnly""#, running(Running::Reading));
        sample(&mut out, name, r#"request_kind="mutating""#, running(Running::Changing));
        let name = "apiserver_longrunning_requests";
        family(&mut out, name, "gauge", "Watches that are open");
        sample(&mut out, name, r#"verb="WATCH""#, running(Running::Watching));
        self.write_objects(&mut out, store);
        write_store(&mut out, store);
        self.others.0.iter().for_each(|measure| measure(&mut out));
        write_process(&mut out);
        bytes(200, PROMETHEUS, out)
    }

    fn write_objects(&self, out: &mut String, store: &dyn Store) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.follow(&store.snapshot());
        let name = "apiserver_storage_objects";
        family(out, name, "gauge", "Objects in the store by resource");
        for (resource, count) in objects.counts.iter().filter(|(_, count)| **count > 0) {
            sample(out, name, &format!(r#"resource="{resource}""#), count);
        }
    }

    fn write_requests(&self, out: &mut String) {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let name = "apiserver_request_total";
        family(out, name, "counter", "Requests by what they were about and how they ended");
        for (labels, series) in requests.iter() {
            let labels = labels.text();
            for (code, count) in &series.codes {
                sample(out, name, &format!(r#"{labels},code="{code}""#), count);
            }
        }
        let name = "apiserver_request_duration_seconds";
        family(out, name, "histogram", "How long requests took that are no watches");
        for (labels, series) in requests.iter().filter(|(_, series)| series.took.count() > 0) {
            series.took.write(out, name, &labels.text());
        }
    }
}

fn write_store(out: &mut String, store: &dyn Store) {
    let state = store.snapshot();
    let leadership = store.leadership().borrow().clone();
    for (name, help, value) in [
        ("holdfast_store_keys", "Keys in the store", state.len() as u64),
        ("holdfast_store_revision", "The newest revision known here", state.revision().0),
        (
            "holdfast_store_compacted_revision",
            "The revision up to which history is forgotten",
            state.compacted().0,
        ),
        ("holdfast_store_term", "The term of the leader's election", leadership.term),
        ("holdfast_store_has_leader", "Whether a leader is known", u64::from(leadership.leader.is_some())),
        ("holdfast_store_is_leader", "Whether this host leads", u64::from(leadership.is_me)),
    ] {
        single(out, name, "gauge", help, value);
    }
    if let Some(metrics) = store.metrics() {
        metrics.write(out);
    }
}

/// How many objects of each resource the store holds. They are counted by what changed since the last reading, and by
/// looking at all of them only where that is forgotten.
#[derive(Debug, Default)]
struct Objects {
    /// Every change up to this one is counted.
    revision: Revision,
    counts: BTreeMap<String, u64>,
}

impl Objects {
    fn follow(&mut self, state: &State) {
        if state.revision() < self.revision || state.check_history(self.revision.next()).is_err() {
            self.counts.clear();
            for kv in state.range(&KeyRange::prefix("/registry/")) {
                self.change(&kv.key, 1);
            }
        } else {
            for event in state.events(self.revision.next()) {
                match event {
                    Event::Put { current, previous: None } => self.change(&current.key, 1),
                    Event::Put { .. } => {}
                    Event::Delete { previous, .. } => self.change(&previous.key, -1),
                }
            }
        }
        self.revision = state.revision();
    }

    fn change(&mut self, key: &[u8], by: i64) {
        let Some(place) = objects::parse(key) else { return };
        let name = if place.group.is_empty() {
            place.resource.to_owned()
        } else {
            format!("{}.{}", place.resource, place.group)
        };
        let count = self.counts.entry(name).or_default();
        *count = count.saturating_add_signed(by);
    }
}

/// What the system says about this process: see proc_pid_stat(5).
fn write_process(out: &mut String) {
    // USER_HZ: what the kernel shows is counted in these, however fast its own clock ticks.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    // Counted from the parent's id on: utime, stime, threads.
    let ticks = fields.get(10).zip(fields.get(11)).map(|(user, system)| user + system);
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let resident = resident.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
    let opened = std::fs::read_dir("/proc/self/fd").map(|folder| folder.count() as f64).ok();
    for (name, kind, help, value) in [
        (
            "process_cpu_seconds_total",
            "counter",
            "Time on processors",
            ticks.map(|ticks| ticks / TICKS_PER_SECOND),
        ),
        ("process_resident_memory_bytes", "gauge", "Resident memory", resident.map(|kb| kb * 1024.0)),
        ("process_open_fds", "gauge", "Open file descriptors", opened),
    ] {
        if let Some(value) = value {
            single(out, name, kind, help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use store::{Op, Txn};

    use super::*;

    #[test]
    fn objects_are_counted_by_what_changed_and_anew_where_that_is_forgotten() {
        let mut state = State::default();
        let mut objects = Objects::default();
        let key = |n: u64| objects::key("apps", "deployments", "default", &n.to_string());
        let mut expect = |state: &State, count: u64| {
            objects.follow(state);
            let one_by_one = state.range(&KeyRange::prefix("/registry/")).count() as u64;
            assert_eq!((objects.counts.get("deployments.apps"), one_by_one), (Some(&count), count));
        };
        for n in 0..5 {
            state.apply(&Txn::put(key(n), "a")).unwrap();
            state.apply(&Txn::put(key(n), "b")).unwrap();
        }
        expect(&state, 5);
        let delete = Txn { success: vec![Op::Delete(KeyRange::key(key(0)))], ..Txn::default() };
        state.apply(&delete).unwrap();
        state.apply(&Txn::put(key(5), "a")).unwrap();
        state.apply(&Txn::put(key(6), "a")).unwrap();
        expect(&state, 6);
        state.apply(&Txn::put(key(7), "a")).unwrap();
        state.compact(state.revision());
        expect(&state, 7);
        expect(&state, 7);
    }
}
