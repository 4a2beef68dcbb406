//! TLS from a kubeconfig: whom to trust, and who we are.

use crate::{Error, Kubeconfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::Arc;
use tokio_rustls::TlsConnector;

/// How to greet a server: the connector, and the name to expect in its certificate.
#[derive(Clone)]
pub(crate) struct Greeting {
    pub(crate) connector: TlsConnector,
    pub(crate) name: ServerName<'static>,
}

/// Builds the greeting. Sessions are never resumed: every connection is a user's first.
pub(crate) fn greeting(config: &Kubeconfig, host: &str) -> Result<Greeting, Error> {
    let wrong = |why: String| Error::Kubeconfig { origin: config.origin.clone(), why };
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&config.certificate_authority) {
        let certificate =
            certificate.map_err(|e| wrong(format!("its certificate-authority is not PEM: {e}")))?;
        roots
            .add(certificate)
            .map_err(|e| wrong(format!("its certificate-authority is not a certificate: {e}")))?;
    }
    if roots.is_empty() && !config.certificate_authority.is_empty() {
        return Err(wrong("there is no certificate in its certificate-authority (it must be PEM)".into()));
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificate-authority, so that the server cannot be trusted".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(e.to_string()))?
        .with_root_certificates(roots);
    let mut tls = match (&config.client_certificate, &config.client_key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|e| wrong(format!("its client-certificate is not PEM: {e}")))?;
            if chain.is_empty() {
                return Err(wrong(
                    "there is no certificate in its client-certificate (it must be PEM)".into(),
                ));
            }
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|e| wrong(format!("its client-key is not a private key as PEM: {e}")))?;
            builder.with_client_auth_cert(chain, key).map_err(|e| {
                wrong(format!("its client-certificate and client-key do not go together: {e}"))
            })?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(wrong("it has one of client-certificate and client-key, and needs both".into())),
    };
    tls.resumption = rustls::client::Resumption::disabled();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = config.tls_server_name.as_deref().unwrap_or(host);
    let name = ServerName::try_from(name.to_owned())
        .map_err(|_| wrong(format!("its server's name {name:?} cannot stand in a certificate")))?;
    Ok(Greeting { connector: TlsConnector::from(Arc::new(tls)), name })
}
