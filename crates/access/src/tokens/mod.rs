//! Tokens of service accounts: made, told apart, and published so that others can tell them apart too.
//!
//! Follows `pkg/serviceaccount` upstream: JSON Web Tokens that are bound to an account, maybe to a pod, a secret or
//! a node, and mean nothing once that is gone.

mod authenticate;
mod discovery;
mod jwt;
mod request;
mod review;
mod secret;

use std::fmt;

pub use authenticate::{Authenticated, TokenError};
pub use discovery::openid_configuration;
pub use request::{Bound, Issued, Stamp, TokenRequest};
pub use review::{asked_token, outside_answer, outside_question, reviewed};

/// The issuer of the tokens, as they name it themselves; and the audience of those that the API believes.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// What tokens are made with.
pub struct Tokens {
    key: pki::TokenKey,
    /// The certificate by which those who have a token believe the API.
    root_certificate: String,
}

impl Tokens {
    /// Tokens signed by this key, for those who believe the API by this certificate (PEM).
    pub fn new(key: pki::TokenKey, root_certificate: impl Into<String>) -> Self {
        Tokens { key, root_certificate: root_certificate.into() }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tokens(…)")
    }
}
