//! What all our verifiers of servers have in common: signatures, which the cryptography's provider checks.

use std::fmt::Debug;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};

/// Says which servers are believed, by the certificates that they show. That a server has the key of its own is seen to beside it.
pub(crate) trait Judge: Debug + Send + Sync {
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error>;
}

/// What a server shows, and for whom it was taken.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub own: &'a CertificateDer<'a>,
    pub others: &'a [CertificateDer<'a>],
    pub name: &'a ServerName<'a>,
    pub ocsp: &'a [u8],
    pub now: UnixTime,
}

impl Shown<'_> {
    /// As another verifier judges it.
    pub(crate) fn by(self, verifier: &dyn ServerCertVerifier) -> Result<(), rustls::Error> {
        let Shown { own, others, name, ocsp, now } = self;
        verifier.verify_server_cert(own, others, name, ocsp, now).map(drop)
    }
}

/// A verifier of what its judge believes.
#[derive(Debug)]
pub(crate) struct Judged<J> {
    pub judge: J,
    pub provider: Arc<CryptoProvider>,
}

impl<J: Judge> ServerCertVerifier for Judged<J> {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let (own, others, name, ocsp) = (end_entity, intermediates, server_name, ocsp_response);
        self.judge.judge(Shown { own, others, name, ocsp, now }).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
