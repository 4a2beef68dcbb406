//! Which certificates may speak for the cluster's own parts.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use pki::{RevokedKeys, Trust, reserved_name};
use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::UserInfo;

/// The cluster's own authority. Clients may show certificates of another one, which signs what users ask for: with
/// those nobody is an administrator, a part of the cluster, or the agent of one of its hosts.
#[derive(Debug, Clone)]
pub struct ClusterAuthority {
    /// Its certificate.
    pub trust: Trust,
    /// The hosts that it made certificates for, as they come and go.
    pub hosts: watch::Receiver<Arc<BTreeSet<String>>>,
    /// The keys of machines that were taken back: handshakes of hosts among themselves look there.
    pub revoked: RevokedKeys,
}

impl ClusterAuthority {
    /// Whether a certificate that was let in may speak for `who`, whom it names.
    pub fn believes(&self, certificate: &CertificateDer<'_>, who: &UserInfo, now: Timestamp) -> bool {
        let reserved = reserved_name(&who.user, who.groups.iter().map(String::as_str)).is_some();
        let of_host = who.node().is_some_and(|host| self.hosts.borrow().contains(host));
        !(reserved || of_host) || self.trust.vouches_for(certificate, now.into())
    }
}
