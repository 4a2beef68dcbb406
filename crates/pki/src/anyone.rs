//! TLS without asking who the other side is.

use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::ring;
use rustls::{ClientConfig, ConfigBuilder};

use crate::judged::{Judge, Judged, Shown};
use crate::{Error, LiveIdentity};

/// Accepts every certificate whose key signs the handshake.
#[derive(Debug)]
struct Anyone;

impl Judge for Anyone {
    fn judge(&self, _: Shown<'_>) -> Result<(), rustls::Error> {
        Ok(())
    }
}

/// A client that believes everybody and shows nothing: for pods, whose certificates nobody vouches for, as the
/// kubelet's probes and the API's proxy upstream have it. Never for anything of the cluster's own.
///
/// # Errors
/// [`Error::Tls`].
pub fn client_config_for_anyone() -> Result<Arc<ClientConfig>, Error> {
    Ok(Arc::new(builder()?.with_no_client_auth()))
}

impl LiveIdentity {
    /// A client with this identity that believes everybody: for a server of an aggregated API whose certificate
    /// the cluster's administrator said not to look at.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client_config_for_anyone(&self) -> Result<Arc<ClientConfig>, Error> {
        Ok(Arc::new(builder()?.with_client_cert_resolver(Arc::new(self.clone()))))
    }
}

fn builder() -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(Error::tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Judged { judge: Anyone, provider }));
    Ok(builder)
}
