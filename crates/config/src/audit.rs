//! Where the audit records what requests did.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Findings;
use crate::check::LONGEST_TIME;

/// The largest that a log may become before it makes way for the next, in MiB.
const LARGEST_LOG: u32 = 10_240;
/// The most former logs that are kept.
const MOST_BACKUPS: u32 = 1000;
/// The most events that a webhook gets at once.
const LARGEST_BATCH: usize = 10_000;

/// The section `audit` of a host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Audit {
    /// A `Policy` of `audit.k8s.io/v1`: which requests are recorded, and how much of each.
    pub policy_file: PathBuf,
    /// Events as lines of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<AuditLog>,
    /// Events to a webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<AuditWebhook>,
}

/// A file that events are appended to, and its former ones.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditLog {
    /// The file.
    pub file: PathBuf,
    /// From which size on it makes way for the next, in MiB.
    #[serde(default = "max_size")]
    pub max_size: u32,
    /// How many former files are kept.
    #[serde(default = "max_backups")]
    pub max_backups: u32,
    /// For how long they are; for ever if this isn't said.
    #[serde(default, with = "humantime_serde", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
}

/// A webhook that events are sent to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuditWebhook {
    /// A kubeconfig that says where it is and who asks.
    pub kubeconfig: PathBuf,
    /// How many events it gets at once.
    #[serde(default = "batch_max_size")]
    pub batch_max_size: usize,
    /// How long the first of them waits for others.
    #[serde(default = "batch_max_wait", with = "humantime_serde")]
    pub batch_max_wait: Duration,
    /// How long to wait after a failure; longer after each further one.
    #[serde(default = "initial_backoff", with = "humantime_serde")]
    pub initial_backoff: Duration,
}

fn max_size() -> u32 {
    100
}

fn max_backups() -> u32 {
    10
}

/// This and the next two are upstream's defaults.
fn batch_max_size() -> usize {
    400
}

fn batch_max_wait() -> Duration {
    Duration::from_secs(30)
}

fn initial_backoff() -> Duration {
    Duration::from_secs(10)
}

impl Audit {
    pub(crate) fn check(&self, findings: &mut Findings) {
        let Audit { policy_file, log, webhook } = self;
        let mut path = |field: &str, path: &Path| {
            let what = format!("{} is no absolute path", path.display());
            findings.require(path.is_absolute(), field, what, "begin it with /");
        };
        path("audit.policyFile", policy_file);
        if let Some(log) = log {
            path("audit.log.file", &log.file);
        }
        if let Some(webhook) = webhook {
            path("audit.webhook.kubeconfig", &webhook.kubeconfig);
        }
        findings.require(
            log.is_some() || webhook.is_some(),
            "audit",
            "nothing is recorded",
            "add log, webhook, or both; or leave it out",
        );
        let mut within = |field: &str, value: u64, most: u64| {
            let what = format!("{value} is not 1 to {most}");
            findings.require((1..=most).contains(&value), field, what, "give it a number between them");
        };
        if let Some(log) = log {
            within("audit.log.maxSize", log.max_size.into(), LARGEST_LOG.into());
            within("audit.log.maxBackups", log.max_backups.into(), MOST_BACKUPS.into());
        }
        if let Some(webhook) = webhook {
            within("audit.webhook.batchMaxSize", webhook.batch_max_size as u64, LARGEST_BATCH as u64);
            for (field, time) in [
                ("audit.webhook.batchMaxWait", webhook.batch_max_wait),
                ("audit.webhook.initialBackoff", webhook.initial_backoff),
            ] {
                let what = format!("{time:?} is longer than {LONGEST_TIME:?}, or nothing");
                let holds = time <= LONGEST_TIME && !time.is_zero();
                findings.require(holds, field, what, "give it a time between them");
            }
        }
        if let Some(age) = log.as_ref().and_then(|log| log.max_age) {
            let instead = "give it a time such as 30days, or leave it out to keep them for ever";
            findings.require(!age.is_zero(), "audit.log.maxAge", "no former log would be kept", instead);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_has_its_default_and_what_can_t_be_is_found() {
        let audit = json!({"policyFile": "/p", "log": {"file": "/l"}, "webhook": {"kubeconfig": "/k"}});
        let audit: Audit = serde_json::from_value(audit).unwrap();
        let told = |audit: &Audit| -> Vec<String> {
            let mut findings = Findings::default();
            audit.check(&mut findings);
            findings.problems.into_iter().map(|problem| problem.field).collect()
        };
        assert_eq!(told(&audit), Vec::<String>::new());
        let again: Audit = serde_json::from_value(serde_json::to_value(&audit).unwrap()).unwrap();
        assert_eq!(again, audit);
        let (log, webhook) = (audit.log.clone().unwrap(), audit.webhook.clone().unwrap());
        assert_eq!((log.max_size, log.max_backups, log.max_age), (100, 10, None));
        let log = AuditLog {
            file: "l".into(),
            max_size: 0,
            max_backups: MOST_BACKUPS + 1,
            max_age: Some(Duration::ZERO),
        };
        let webhook = AuditWebhook { batch_max_size: 0, initial_backoff: Duration::ZERO, ..webhook };
        let wrong = Audit { policy_file: "p".into(), log: Some(log), webhook: Some(webhook) };
        let fields = [
            "audit.policyFile",
            "audit.log.file",
            "audit.log.maxSize",
            "audit.log.maxBackups",
            "audit.webhook.batchMaxSize",
            "audit.webhook.initialBackoff",
            "audit.log.maxAge",
        ];
        assert_eq!(told(&wrong), fields);
        assert_eq!(told(&Audit { log: None, webhook: None, ..audit }), ["audit"]);
    }
}
