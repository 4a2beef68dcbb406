//! Who asks: the subject of the client's certificate, or the service account whose token it sends.

use std::collections::BTreeMap;

use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A user with groups. A client certificate's subject names them: CN is the user, each O a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    /// The user's name.
    pub user: String,
    /// The groups that the user belongs to.
    pub groups: Vec<String>,
    /// What tells the user from others who had the same name before; empty where nothing does.
    pub uid: String,
    /// What else is known, such as the pod that a token was made for.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl UserInfo {
    /// A user with groups, of whom nothing else is known.
    pub fn new<G: Into<String>>(user: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Self {
        let groups = groups.into_iter().map(Into::into).collect();
        UserInfo { user: user.into(), groups, ..UserInfo::default() }
    }

    /// The identity that a (verified) certificate speaks for, if its subject has a common name.
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let subject = certificate.subject();
        let user = subject.iter_common_name().next()?.as_str().ok()?;
        Some(UserInfo::new(user, subject.iter_organization().filter_map(|o| o.as_str().ok())))
    }

    /// The identity of a part of this process that writes as `user`: hosts are held to what hosts may,
    /// everybody else in here is trusted.
    pub fn in_process(user: &str) -> Self {
        let group = if user.starts_with(NODE_PREFIX) { NODES } else { MASTERS };
        UserInfo::new(user, [group])
    }

    /// The same with the group that everybody is in who is known.
    pub fn authenticated(mut self) -> Self {
        if !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// The identity as `UserInfo` of authentication.k8s.io/v1.
    pub fn user_info(&self) -> Value {
        let mut info = json!({"username": self.user});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.as_str().into();
        }
        if !self.groups.is_empty() {
            info["groups"] = json!(self.groups);
        }
        if !self.extra.is_empty() {
            info["extra"] = json!(self.extra);
        }
        info
    }

    /// Whether it belongs to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The host's name if this is a host's agent (and not an administrator at the same time).
    pub fn node(&self) -> Option<&str> {
        if self.is_in(MASTERS) || !self.is_in(NODES) {
            return None;
        }
        self.user.strip_prefix(NODE_PREFIX)
    }
}

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of everybody who is known.
pub const AUTHENTICATED: &str = "system:authenticated";
/// The group of everybody else.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// The group of hosts' agents.
pub const NODES: &str = "system:nodes";
/// What the names of hosts' agents begin with.
pub const NODE_PREFIX: &str = "system:node:";
