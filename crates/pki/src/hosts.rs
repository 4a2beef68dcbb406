//! Doors between hosts: a client whose key was taken back, or with another certificate of the same authority than a host's, is turned
//! away in the handshake.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

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
        let refused = |why| Err(Error::InvalidCertificate(why));
        if self.hosts_alone && !is_hosts(end_entity) {
            return refused(CertificateError::ApplicationVerificationFailure);
        }
        if KeyHash::of(end_entity).is_none_or(|key| self.revoked.has(key)) {
            return refused(CertificateError::Revoked);
        }
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
