//! Whose certificate a webhook must have.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::CallError;

/// Where systems keep the authorities that everybody trusts.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
/// So many are kept: with them the sessions that make the next handshake cheap.
const MOST: usize = 64;

/// How to speak TLS with those whom a bundle of authorities vouches for.
#[derive(Default)]
pub(super) struct Trusts {
    kept: Mutex<HashMap<String, Arc<ClientConfig>>>,
}

impl Trusts {
    /// `bundle` is PEM in base64; an empty one means the authorities of this machine.
    pub(super) fn config(&self, bundle: &str) -> Result<Arc<ClientConfig>, CallError> {
        if let Some(found) = self.kept.lock().unwrap_or_else(PoisonError::into_inner).get(bundle) {
            return Ok(found.clone());
        }
        let pem = if bundle.is_empty() {
            SYSTEM.iter().find_map(|path| std::fs::read(path).ok()).unwrap_or_default()
        } else {
            STANDARD.decode(bundle).map_err(|error| CallError::Bundle(error.to_string()))?
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let certificate = certificate.map_err(|error| CallError::Bundle(error.to_string()))?;
            // Of a machine's authorities some may be too old to be understood.
            let added = roots.add(certificate);
            if !bundle.is_empty() {
                added.map_err(|error| CallError::Bundle(error.to_string()))?;
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| CallError::Bundle(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let config = Arc::new(config);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.insert(bundle.to_owned(), config.clone());
        Ok(config)
    }
}
