//! An identity that is renewed while servers and clients use it.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::{Error, Identity, Trust};

/// An identity whose certificate may be replaced while servers and clients that were made with it are at work: each handshake
/// shows the one that is there then, and connections that are open go on. Clones share it.
#[derive(Debug, Clone)]
pub struct LiveIdentity {
    current: Arc<RwLock<Current>>,
    /// What servers show after their own certificate.
    beside: Vec<CertificateDer<'static>>,
}

#[derive(Debug)]
struct Current {
    identity: Identity,
    certified: Arc<CertifiedKey>,
}

impl Current {
    fn new(identity: Identity) -> Result<Self, Error> {
        let provider = ring::default_provider();
        let certified = CertifiedKey::from_der(identity.chain()?, identity.key()?, &provider);
        Ok(Current { certified: Arc::new(certified.map_err(Error::tls)?), identity })
    }
}

impl LiveIdentity {
    /// An identity that may be replaced later.
    ///
    /// # Errors
    /// [`Error::Tls`], for example if certificate and key are not a pair.
    pub fn new(identity: Identity) -> Result<Self, Error> {
        Ok(LiveIdentity { current: Arc::new(RwLock::new(Current::new(identity)?)), beside: Vec::new() })
    }

    /// The identity as it is now.
    pub fn current(&self) -> Identity {
        self.current.read().unwrap_or_else(PoisonError::into_inner).identity.clone()
    }

    /// Puts another in its place, which the next handshake shows.
    ///
    /// # Errors
    /// As [`new`](Self::new); then the former one stays.
    pub fn replace(&self, identity: Identity) -> Result<(), Error> {
        let new = Current::new(identity)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }

    /// The same identity, shown by servers together with the authorities that vouch for it: for those who know these only by
    /// their hash.
    pub fn showing(&self, trust: &Trust) -> Self {
        LiveIdentity { current: self.current.clone(), beside: trust.certificates().to_vec() }
    }

    /// What a handshake shows.
    pub(crate) fn shown(&self) -> Arc<CertifiedKey> {
        let certified = self.current.read().unwrap_or_else(PoisonError::into_inner).certified.clone();
        if self.beside.is_empty() {
            return certified;
        }
        let mut shown = CertifiedKey::clone(&certified);
        shown.cert.extend(self.beside.iter().cloned());
        Arc::new(shown)
    }
}

impl ResolvesServerCert for LiveIdentity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }
}

impl ResolvesClientCert for LiveIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.shown())
    }

    fn has_certs(&self) -> bool {
        true
    }
}
