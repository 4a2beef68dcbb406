//! Doors between hosts: a client whose key was taken back, or with another certificate of the same authority than a host's, is turned
//! away in the handshake, and a server whose key was taken back isn't believed.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::judged::{Judge, Shown};
use crate::reserved::{NODES, node};
use crate::{KeyHash, RevokedKeys};

/// Whether a certificate is a host's: `CN=system:node:NAME`, `O=system:nodes`.
fn is_hosts(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(certificate) else { return false };
    let subject = certificate.subject();
    let mut names = subject.iter_common_name().map(|name| name.as_str().unwrap_or_default());
    let is_node = names.next().is_some_and(|name| node(name).is_some()) && names.next().is_none();
    is_node && subject.iter_organization().any(|group| group.as_str() == Ok(NODES))
}

/// Refuses a certificate whose key was taken back, or can't be read.
fn check(revoked: &RevokedKeys, certificate: &CertificateDer<'_>) -> Result<(), Error> {
    match KeyHash::of(certificate) {
        Some(key) if !revoked.has(key) => Ok(()),
        _ => Err(Error::InvalidCertificate(CertificateError::Revoked)),
    }
}

/// Believes a server that another verifier believes and whose key wasn't taken back.
#[derive(Debug)]
pub(crate) struct Unrevoked {
    pub valid: Arc<WebPkiServerVerifier>,
    pub revoked: RevokedKeys,
}

impl Judge for Unrevoked {
    fn judge(&self, shown: Shown<'_>) -> Result<(), Error> {
        shown.by(&*self.valid)?;
        check(&self.revoked, shown.own)
    }
}

/// Lets in whom another verifier lets in and whose key wasn't taken back, and of these maybe hosts alone.
#[derive(Debug)]
pub(crate) struct Doorkeeper {
    pub valid: Arc<dyn ClientCertVerifier>,
    pub revoked: RevokedKeys,
    pub hosts_alone: bool,
}

impl ClientCertVerifier for Doorkeeper {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.valid.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.valid.verify_client_cert(end_entity, intermediates, now)?;
        if self.hosts_alone && !is_hosts(end_entity) {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        check(&self.revoked, end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.valid.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.valid.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.valid.supported_verify_schemes()
    }
}
