//! What counts of a client's certificate after the handshake: at each request, for as long as its connection lives.

use jiff::Timestamp;
use pki::KeyHash;
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::UserInfo;

/// A certificate that a client showed.
#[derive(Debug, Clone)]
pub struct ShownCertificate {
    /// For whom it speaks.
    pub who: UserInfo,
    /// From when on it is valid, in seconds of the Unix epoch.
    pub(crate) from: i64,
    until: i64,
    /// Its key.
    pub(crate) key: KeyHash,
}

impl ShownCertificate {
    /// A certificate that was verified, if its subject has a common name.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        Some(ShownCertificate {
            who: UserInfo::of_certificate(certificate)?,
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
            key: KeyHash::of(certificate)?,
        })
    }

    /// Whether its time is over. The handshake looks at that too, but not for a session that is resumed, and a connection may outlive it.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.until < now.as_second()
    }
}
