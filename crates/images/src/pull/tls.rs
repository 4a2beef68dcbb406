//! Whom to believe: the system's authorities, and those of a registry's entry.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_rustls::TlsConnector;

use super::Registry;

/// The system's authorities, read once they are asked for.
#[derive(Default)]
pub(super) struct Trust {
    system: OnceLock<RootCertStore>,
}

impl Trust {
    pub(super) fn connector(&self, registry: &Registry) -> Result<TlsConnector, String> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|why| why.to_string())?;
        let mut config = if registry.skip_verify {
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
                .with_no_client_auth()
        } else {
            let mut roots = self.system.get_or_init(system).clone();
            if let Some(path) = &registry.ca {
                add(&mut roots, path)?;
            }
            if roots.is_empty() {
                return Err("this machine knows no certificate authority; install the package ca-certificates, or name a \
                    file with the registry's as its ca"
                    .into());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn system() -> RootCertStore {
    let found = rustls_native_certs::load_native_certs();
    for why in found.errors {
        tracing::warn!(%why, "some of the system's certificate authorities can't be read");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    roots
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let wrong = |why: String| format!("ca {}: {why}", path.display());
    let mut count = 0;
    for certificate in CertificateDer::pem_file_iter(path).map_err(|why| wrong(why.to_string()))? {
        let certificate = certificate.map_err(|why| wrong(why.to_string()))?;
        roots.add(certificate).map_err(|why| wrong(why.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(wrong("there is no PEM certificate in it".into())) } else { Ok(()) }
}

/// Believes each certificate: for registries whose entry says so.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
