//! How a cluster does: what its hosts say of themselves, and what would break it.

mod facts;
mod gather;
mod judge;
mod show;
mod told;

use client::Kubeconfig;

use crate::finding::{Finding, Grade};

pub use gather::NoStatus;
pub use told::{
    CLUSTER_PATH, CertificateSays, ClusterSays, HOST_PATH, HostAnswer, HostSays, LeaseSays, MemberSays,
};

/// How a cluster is, as of one moment.
#[derive(Debug, Clone)]
pub struct Status {
    facts: facts::Facts,
    findings: Vec<Finding>,
}

impl Status {
    /// Asks the first of these servers that answers; all of them are of one cluster. Takes four seconds for each that doesn't.
    ///
    /// # Errors
    /// None of them can be asked.
    pub async fn ask(servers: &[Kubeconfig]) -> Result<Self, NoStatus> {
        let facts = gather::gather(servers).await?;
        Ok(Status { findings: judge::judge(&facts), facts })
    }

    /// Whether there is nothing to do: all could be seen, and nothing is wrong.
    pub fn is_well(&self) -> bool {
        self.findings.iter().all(|finding| finding.grade <= Grade::Note)
    }
}
