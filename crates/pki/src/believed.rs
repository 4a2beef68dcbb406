//! Servers of others, whose own certificate may be the one that is believed.

use std::sync::Arc;

use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};

use crate::Error;
use crate::judged::{Judge, Judged, Shown};

/// Believes who shows a certificate that is itself among those believed, and else who shows one that they vouch for.
///
/// Go's `Certificate.Verify` ends a chain at a certificate that is in the pool, be it the server's own; webpki wants an
/// authority above every server, and refuses a server whose certificate is an authority's. But `openssl req -x509` makes just
/// that, and people give it to the API as the `caBundle` of their server.
#[derive(Debug)]
pub(crate) struct Believed {
    certificates: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Believed {
    pub(crate) fn verifier(
        certificates: Vec<CertificateDer<'static>>,
        roots: Arc<RootCertStore>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<Judged<Self>>, Error> {
        let authorities = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
        let authorities = authorities.build().map_err(Error::tls)?;
        Ok(Arc::new(Judged { judge: Believed { certificates, authorities }, provider }))
    }
}

impl Judge for Believed {
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error> {
        if !self.certificates.iter().any(|believed| believed == shown.own) {
            return shown.by(&*self.authorities);
        }
        check_itself(shown.own, shown.now)?;
        verify_server_name(&ParsedCertificate::try_from(shown.own)?, shown.name)
    }
}

/// What nobody else says of a certificate that is believed for itself: its time, and that it may be a server's.
fn check_itself(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), CertificateError> {
    let (_, parsed) =
        x509_parser::parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now < parsed.validity().not_before.timestamp() {
        return Err(CertificateError::NotValidYet);
    }
    if now > parsed.validity().not_after.timestamp() {
        return Err(CertificateError::Expired);
    }
    let purposes = parsed.extended_key_usage().map_err(|_| CertificateError::BadEncoding)?;
    if purposes.is_some_and(|purposes| !purposes.value.any && !purposes.value.server_auth) {
        return Err(CertificateError::InvalidPurpose);
    }
    Ok(())
}
