//! Who asks: the subject of the client's certificate.

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A user with groups, as the client certificate's subject names them: CN is the user, each O a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user's name.
    pub user: String,
    /// The groups that the user belongs to.
    pub groups: Vec<String>,
}

impl Identity {
    /// The identity that a (verified) certificate speaks for, if its subject has a common name.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| Some(o.as_str().ok()?.to_owned())).collect();
        Some(Identity { user, groups })
    }

    /// The identity of a part of this process that writes as `user`: hosts are held to what hosts may,
    /// everybody else in here is trusted.
    pub(crate) fn in_process(user: &str) -> Self {
        let group = if user.starts_with(NODE_PREFIX) { NODES } else { MASTERS };
        Identity { user: user.to_owned(), groups: vec![group.to_owned()] }
    }

    /// The same with the group that everybody is in who is known.
    pub(crate) fn authenticated(mut self) -> Self {
        if !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    pub(crate) fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The host's name if this is a host's agent (and not an administrator at the same time).
    pub(crate) fn node(&self) -> Option<&str> {
        if self.is_in(MASTERS) || !self.is_in(NODES) {
            return None;
        }
        self.user.strip_prefix(NODE_PREFIX)
    }
}

/// The group that may do everything.
pub(crate) const MASTERS: &str = "system:masters";
/// The group of everybody who is known.
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of hosts' agents.
pub(crate) const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";
