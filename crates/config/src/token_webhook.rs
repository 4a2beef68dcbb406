//! Who is asked about tokens that the cluster didn't make.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Findings;
use crate::check::LONGEST_TIME;

/// The section `tokenWebhook` of a host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenWebhook {
    /// A kubeconfig that says where it is and who asks.
    pub kubeconfig: PathBuf,
    /// For how long an answer counts, also one that a token is nobody's. Zero for asking each time.
    #[serde(default = "cache_ttl", with = "humantime_serde")]
    pub cache_ttl: Duration,
}

/// Upstream's default (`--authentication-token-webhook-cache-ttl`).
fn cache_ttl() -> Duration {
    Duration::from_secs(120)
}

impl TokenWebhook {
    pub(crate) fn check(&self, findings: &mut Findings) {
        let TokenWebhook { kubeconfig, cache_ttl } = self;
        let what = format!("{} is no absolute path", kubeconfig.display());
        findings.require(kubeconfig.is_absolute(), "tokenWebhook.kubeconfig", what, "begin it with /");
        let what = format!("{cache_ttl:?} is longer than {LONGEST_TIME:?}");
        let holds = *cache_ttl <= LONGEST_TIME;
        findings.require(holds, "tokenWebhook.cacheTtl", what, "give it a shorter time, such as 2m");
    }
}
