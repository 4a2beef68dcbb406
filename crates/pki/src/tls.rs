//! TLS on both ends, set up once for the whole house.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::{Resumption, WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion};

use crate::believed::Believed;
use crate::hosts::{Doorkeeper, Unrevoked};
use crate::identity::certificates;
use crate::judged::Judged;
use crate::{Error, Identity, LiveIdentity, RevokedKeys, folder};

const FILE: &str = "ca.crt";
/// Wherever we listen, and between hosts.
const NEWEST: &[&SupportedProtocolVersion] = &[&TLS13];
/// As a client of programs of any age: webhooks, servers of aggregated APIs.
const ANY: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Which clients a server lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientAuth {
    /// A client with no certificate is turned away in the handshake.
    Required,
    /// A client with none may speak, and the server decides what to answer: for the API. A certificate that is shown
    /// must be valid.
    Optional,
}

/// The certificates of the authorities that are believed.
#[derive(Debug, Clone)]
pub struct Trust {
    pem: String,
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Trust {
    /// The certificates in a PEM text.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is none, or one that is not an authority's.
    pub fn from_pem(pem: impl Into<String>) -> Result<Self, Error> {
        let pem = pem.into();
        let certificates = certificates("the authority's certificate", &pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|e| Error::unusable("the authority's certificate", e))?;
        }
        Ok(Trust { pem, certificates, roots: Arc::new(roots) })
    }

    /// Those certificates in a PEM text that can be used: of a machine's authorities some may be too old to be understood.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is none.
    pub fn from_old_pem(pem: impl Into<String>) -> Result<Self, Error> {
        let pem = pem.into();
        let mut certificates = certificates("the machine's authorities", &pem)?;
        let mut roots = RootCertStore::empty();
        certificates.retain(|certificate| roots.add(certificate.clone()).is_ok());
        if certificates.is_empty() {
            return Err(Error::unusable("the machine's authorities", "none can be understood"));
        }
        Ok(Trust { pem, certificates, roots: Arc::new(roots) })
    }

    /// These certificates and those of another.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn and(&self, other: &Trust) -> Result<Self, Error> {
        Trust::from_pem(format!("{}\n{}", self.pem, other.pem))
    }

    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }

    /// The certificates as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Writes `ca.crt` into a folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        folder::write_public(&folder.join(FILE), &self.pem)
    }

    /// Reads what [`save`](Trust::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load(folder: &Path) -> Result<Self, Error> {
        Trust::from_pem(folder::read(&folder.join(FILE))?)
    }

    /// Whether one of these authorities signed a client's certificate, at a time when it is valid.
    pub fn vouches_for(&self, certificate: &CertificateDer<'_>, now: SystemTime) -> bool {
        let verifier = WebPkiClientVerifier::builder_with_provider(self.roots.clone(), provider()).build();
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        verifier.is_ok_and(|verifier| verifier.verify_client_cert(certificate, &[], now).is_ok())
    }

    /// A client without a certificate, for servers that aren't ours: of any age, and believed also if their own
    /// certificate is one of these. Sessions are resumed. `alpn` is in the order of preference.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
        Ok(speaking(self.others()?.with_no_client_auth(), alpn))
    }

    fn others(&self) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, Error> {
        let verifier = Believed::verifier(self.certificates.clone(), self.roots.clone(), provider())?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(ANY)
            .map_err(Error::tls)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        Ok(builder)
    }
}

impl LiveIdentity {
    /// A server with this identity: TLS 1.3. Sessions are resumed by tickets that no memory is kept for.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn server_config(
        &self,
        trust: &Trust,
        client_auth: ClientAuth,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Error> {
        let verifier = WebPkiClientVerifier::builder_with_provider(trust.roots.clone(), provider());
        let verifier = match client_auth {
            ClientAuth::Required => verifier,
            ClientAuth::Optional => verifier.allow_unauthenticated(),
        };
        let mut config = self.listening(verifier.build().map_err(Error::tls)?)?;
        config.ticketer = ring::Ticketer::new().map_err(Error::tls)?;
        config.send_tls13_tickets = 1;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    /// A server for hosts alone: a client with no certificate, another one of the same authority (the administrator, the front
    /// proxy), or one whose key was taken back, is turned away in the handshake. No session is resumed, since that would ask nobody again.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn members_config(&self, trust: &Trust, revoked: &RevokedKeys) -> Result<Arc<ServerConfig>, Error> {
        self.guarded(trust, revoked, true, &[])
    }

    /// A server for hosts and administrators: a client with no certificate, or one whose key was taken back, is turned away in the
    /// handshake. No session is resumed.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn agent_config(
        &self,
        trust: &Trust,
        revoked: &RevokedKeys,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Error> {
        self.guarded(trust, revoked, false, alpn)
    }

    fn guarded(
        &self,
        trust: &Trust,
        revoked: &RevokedKeys,
        hosts_alone: bool,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Error> {
        let valid = WebPkiClientVerifier::builder_with_provider(trust.roots.clone(), provider());
        let valid = valid.build().map_err(Error::tls)?;
        let doorkeeper = Doorkeeper { valid, revoked: revoked.clone(), hosts_alone };
        let mut config = self.listening(Arc::new(doorkeeper))?;
        config.send_tls13_tickets = 0;
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }

    fn listening(&self, verifier: Arc<dyn ClientCertVerifier>) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(NEWEST);
        let builder = builder.map_err(Error::tls)?.with_client_cert_verifier(verifier);
        Ok(builder.with_cert_resolver(Arc::new(self.clone())))
    }

    /// A client with this identity, for servers of this authority: TLS 1.3. Sessions are resumed.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client_config(&self, trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(NEWEST)
            .map_err(Error::tls)?
            .with_root_certificates(trust.roots.clone())
            .with_client_cert_resolver(Arc::new(self.clone()));
        Ok(speaking(config, alpn))
    }

    /// A client with this identity, for servers of other hosts: as [`client_config`](Self::client_config), but a server whose key was
    /// taken back isn't believed. No session is resumed, since that would look at no certificate again.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn peer_config(
        &self,
        trust: &Trust,
        revoked: &RevokedKeys,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, Error> {
        let valid = WebPkiServerVerifier::builder_with_provider(trust.roots.clone(), provider());
        let valid = valid.build().map_err(Error::tls)?;
        let judge = Unrevoked { valid, revoked: revoked.clone() };
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(NEWEST)
            .map_err(Error::tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Judged { judge, provider: provider() }))
            .with_client_cert_resolver(Arc::new(self.clone()));
        config.resumption = Resumption::disabled();
        Ok(speaking(config, alpn))
    }

    /// As [`client_config`](Self::client_config), for servers that aren't ours and may be of any age: TLS 1.2
    /// also. They are believed also if their own certificate is among those of `trust`.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client_config_for_any_age(
        &self,
        trust: &Trust,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, Error> {
        Ok(speaking(trust.others()?.with_client_cert_resolver(Arc::new(self.clone())), alpn))
    }
}

impl Identity {
    /// A server with this identity, as [`LiveIdentity::server_config`].
    ///
    /// # Errors
    /// [`Error::Tls`], for example if certificate and key are not a pair.
    pub fn server_config(
        &self,
        trust: &Trust,
        client_auth: ClientAuth,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, Error> {
        LiveIdentity::new(self.clone())?.server_config(trust, client_auth, alpn)
    }

    /// A client with this identity, as [`LiveIdentity::client_config`].
    ///
    /// # Errors
    /// [`Error::Tls`], for example if certificate and key are not a pair.
    pub fn client_config(&self, trust: &Trust, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, Error> {
        LiveIdentity::new(self.clone())?.client_config(trust, alpn)
    }

    /// A client with this identity, as [`LiveIdentity::client_config_for_any_age`].
    ///
    /// # Errors
    /// [`Error::Tls`], for example if certificate and key are not a pair.
    pub fn client_config_for_any_age(
        &self,
        trust: &Trust,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, Error> {
        LiveIdentity::new(self.clone())?.client_config_for_any_age(trust, alpn)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn speaking(mut config: ClientConfig, alpn: &[&[u8]]) -> Arc<ClientConfig> {
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Arc::new(config)
}
