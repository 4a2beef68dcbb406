//! `metrics.k8s.io`: what nodes and pods use, for `kubectl top` and for autoscalers, out of what the hosts' agents tell
//! (`/metrics/resource`). Where an APIService for it stands for another server, upstream's metrics-server say, that one answers.
//!
//! Follows `sigs.k8s.io/metrics-server`: a use of processors is the difference of two looks. But nobody is looked at unless
//! somebody asks, and only those hosts that matter for the question.

mod answer;
mod sample;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use machinery::Status;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::proxy::Proxy;
use crate::registry::Registry;
use sample::Sample;

/// The group.
pub(crate) const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub(crate) const VERSION: &str = "v1beta1";
/// What was seen this long ago is seen again (metrics-server's `--metric-resolution`), a little earlier for those who ask as often.
const RESOLUTION: Duration = Duration::from_millis(14_500);
/// Between two looks of which the first is older than this lies too much for a rate.
const OLDEST: Duration = Duration::from_secs(60);
/// Where there is no earlier look, so long after the first one comes the second.
const AT_ONCE: Duration = Duration::from_secs(1);
/// So long may a host take to tell. Others wait for it: who asks gets all hosts, and looks at a time are one question's.
const TELLS_WITHIN: Duration = Duration::from_secs(5);
/// The number of hosts that are asked at a time.
const TOGETHER: usize = 32;

/// What nodes and pods use.
pub(crate) struct Usage {
    registry: Arc<Registry>,
    proxy: Arc<Proxy>,
    /// What was seen. A request that comes while another one looks waits for it.
    seen: Mutex<Seen>,
}

/// What was seen of hosts.
#[derive(Default)]
struct Seen {
    looks: BTreeMap<String, Looks>,
    /// When hosts that gave no answer were asked. They aren't asked again at once: each question would wait for them, one after
    /// the other.
    silent: BTreeMap<String, Instant>,
}

/// The last two looks at a host.
#[derive(Clone)]
pub(crate) struct Looks {
    before: Option<Arc<Sample>>,
    last: Arc<Sample>,
    at: Instant,
}

impl Usage {
    pub(crate) fn new(registry: Arc<Registry>, proxy: Arc<Proxy>) -> Self {
        Usage { registry, proxy, seen: Mutex::default() }
    }

    /// What follows group and version in a path below them.
    pub(crate) fn below(path: &str) -> Option<&str> {
        let below =
            path.strip_prefix("/apis/")?.strip_prefix(GROUP)?.strip_prefix('/')?.strip_prefix(VERSION)?;
        below.starts_with('/').then_some(below).filter(|below| below.len() > 1)
    }

    /// Two looks each at hosts. What one that gives no answer told last counts for as long as a look does.
    async fn looked_at(&self, hosts: BTreeSet<String>) -> BTreeMap<String, Looks> {
        let mut seen = self.seen.lock().await;
        let now = self.registry.edge().instant();
        seen.looks.retain(|_, look| now.saturating_duration_since(look.at) < OLDEST);
        seen.silent.retain(|_, at| now.saturating_duration_since(*at) < RESOLUTION);
        let is_old = |look: &Looks| now.saturating_duration_since(look.at) >= RESOLUTION;
        let is_due =
            |host: &&String| !seen.silent.contains_key(*host) && seen.looks.get(*host).is_none_or(is_old);
        let due = hosts.iter().filter(is_due).cloned().collect();
        self.look(due, &mut seen).await;
        let lone = |host: &&String| seen.looks.get(*host).is_some_and(|look| look.before.is_none());
        let again: Vec<String> = hosts.iter().filter(lone).cloned().collect();
        if !again.is_empty() {
            sleep(AT_ONCE).await;
            self.look(again, &mut seen).await;
        }
        let looks = &seen.looks;
        let found = hosts.into_iter().filter_map(|host| looks.get(&host).cloned().map(|look| (host, look)));
        found.collect()
    }

    async fn look(&self, hosts: Vec<String>, seen: &mut Seen) {
        let edge = self.registry.edge();
        let one = |host: String| async move {
            let late = |_| Err(Status::unavailable(format!("the host {host} took too long to tell")));
            let text = self.proxy.resource_metrics(&host);
            let text = timeout(TELLS_WITHIN, text).await.unwrap_or_else(late);
            (text.map(|text| Sample::parse(&text, edge.now())), host)
        };
        let mut answers = futures::stream::iter(hosts).map(one).buffer_unordered(TOGETHER);
        while let Some((sample, host)) = answers.next().await {
            match sample {
                Ok(sample) => {
                    let before = seen.looks.get(&host).map(|look| look.last.clone());
                    seen.looks.insert(host, Looks { before, last: Arc::new(sample), at: edge.instant() });
                }
                Err(status) => {
                    tracing::debug!(host, %status, "a host doesn't say what its pods use");
                    seen.silent.insert(host, edge.instant());
                }
            }
        }
    }
}

/// Discovery: its resources, as an `APIResourceList`.
pub(crate) fn resources() -> Value {
    let resource = |name: &str, kind: &str, namespaced: bool| json!({"name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": ["get", "list"]});
    json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"),
        "resources": [resource("nodes", "NodeMetrics", false), resource("pods", "PodMetrics", true)],
    })
}
