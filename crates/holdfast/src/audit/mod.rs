//! The audit of a host: what the API tells of requests, into a file and to a webhook (docs/audit.md).

mod log;
mod queue;
mod webhook;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use audit::{Auditor, Policy, Sink};
use figures::{family, sample, single};
use jiff::Timestamp;
use tracing::info_span;

use self::log::LogFile;
use self::queue::Queue;

pub use self::webhook::behind_prefix;

/// The longest policy that is read, in bytes.
const LONGEST_POLICY: u64 = 1 << 20;
/// How long the end of the host waits for what is still to be written.
const FAREWELL: Duration = Duration::from_secs(2);

/// A host's audit at work.
#[derive(Clone)]
pub struct Audit {
    auditor: Arc<Auditor>,
    queues: Vec<Arc<Queue>>,
    /// Whether the log can't make way for the next file, where there is a log.
    log_is_stuck: Option<Arc<AtomicBool>>,
}

/// Starts what the configuration asks for.
///
/// # Errors
/// If the policy, the file or the webhook's kubeconfig can't be used: a host that should tell and can't doesn't start.
pub fn start(config: &config::Audit) -> anyhow::Result<Audit> {
    let policy = policy(&config.policy_file)
        .with_context(|| format!("the audit policy {} can't be used", config.policy_file.display()))?;
    let (mut queues, mut log_is_stuck) = (Vec::new(), None);
    if let Some(log) = &config.log {
        let file = LogFile::open(log, now)
            .with_context(|| format!("can't write the audit log {}", log.file.display()))?;
        log_is_stuck = Some(file.is_stuck());
        let (queue, outlet) = Queue::new("log");
        // A disk that takes its time holds up nothing but this.
        tasks::thread("audit log", info_span!("audit log"), move || log::write(file, outlet))?;
        queues.push(queue);
    }
    if let Some(webhook) = &config.webhook {
        let (queue, outlet) = Queue::new("webhook");
        let sender = webhook::Sender::new(webhook)?;
        tasks::spawn(info_span!("audit webhook"), sender.send_all(outlet));
        queues.push(queue);
    }
    let sinks = queues.iter().map(|queue| queue.clone() as Arc<dyn Sink>).collect();
    Ok(Audit { auditor: Arc::new(Auditor::new(policy, sinks)), queues, log_is_stuck })
}

fn policy(path: &Path) -> anyhow::Result<Policy> {
    let mut text = Vec::new();
    File::open(path)?.take(LONGEST_POLICY + 1).read_to_end(&mut text)?;
    anyhow::ensure!(text.len() as u64 <= LONGEST_POLICY, "it is larger than {LONGEST_POLICY} bytes");
    Ok(Policy::parse(&text)?)
}

#[allow(clippy::disallowed_methods, reason = "former logs are named by the time, and go by it")]
fn now() -> Timestamp {
    Timestamp::now()
}

impl Audit {
    /// The audit, which records requests.
    pub fn auditor(&self) -> Arc<Auditor> {
        self.auditor.clone()
    }

    /// What was recorded and what was lost, for `/metrics`.
    pub fn metrics(&self) -> server::Measure {
        let audit = self.clone();
        Box::new(move |out| {
            audit.auditor.write_metrics(out);
            let name = "apiserver_audit_error_total";
            family(out, name, "counter", "Audit events that were lost");
            for queue in &audit.queues {
                sample(out, name, &format!(r#"plugin="{}""#, queue.name()), queue.lost());
            }
            let name = "holdfast_audit_waiting";
            family(out, name, "gauge", "Audit events that are still to be written or sent");
            for queue in &audit.queues {
                sample(out, name, &format!(r#"plugin="{}""#, queue.name()), queue.waiting());
            }
            if let Some(is_stuck) = &audit.log_is_stuck {
                let about = "1 while the audit log grows past its size, since it can't be renamed";
                let value = u8::from(is_stuck.load(Ordering::Relaxed));
                single(out, "holdfast_audit_log_stuck", "gauge", about, value);
            }
        })
    }

    /// Waits until all is written and sent, or for a moment.
    pub async fn finish(&self) {
        self.queues.iter().for_each(|queue| queue.hurry());
        for queue in &self.queues {
            if tokio::time::timeout(FAREWELL, queue.emptied()).await.is_err() {
                tracing::warn!(to = queue.name(), events = queue.waiting(), "audit events are lost");
            }
        }
    }
}
