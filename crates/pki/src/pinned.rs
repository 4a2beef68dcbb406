//! An authority that is known by its hash alone: how a machine that has nothing of a cluster's yet knows that it speaks to it.

use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::crypto::{CryptoProvider, ring as ring_provider};
use rustls::pki_types::CertificateDer;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, OtherError, RootCertStore};

use crate::authority::pem;
use crate::judged::{Judge, Judged, Shown};
use crate::{Error, KeyHash, Trust};

/// A server that doesn't show the authority that is expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it shows no authority whose hash is {0}")]
pub struct OtherAuthority(KeyHash);

impl KeyHash {
    /// The authority with this hash among the certificates that a server shows.
    ///
    /// # Errors
    /// [`Error::Unusable`] if there is none.
    pub fn authority_of(self, shown: &[CertificateDer<'_>]) -> Result<Trust, Error> {
        let found = self.find(shown);
        let found = found.ok_or_else(|| Error::unusable("the server's certificate", OtherAuthority(self)))?;
        Trust::from_pem(pem("CERTIFICATE", found))
    }

    /// A client that believes only servers of the authority with this hash, which they must show: TLS 1.3.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub fn client_config(self) -> Result<Arc<ClientConfig>, Error> {
        let provider = Arc::new(ring_provider::default_provider());
        let config = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(Error::tls)?
            .dangerous()
            .with_custom_certificate_verifier(Pinned::verifier(self, provider))
            .with_no_client_auth();
        Ok(Arc::new(config))
    }

    fn find<'a, 'b>(self, shown: &'a [CertificateDer<'b>]) -> Option<&'a CertificateDer<'b>> {
        shown.iter().find(|certificate| KeyHash::of(certificate) == Some(self))
    }
}

impl Trust {
    /// The hash of the first of these authorities, by which machines that join know it.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn hash(&self) -> Result<KeyHash, Error> {
        let first = self.certificates().first().and_then(KeyHash::of);
        first.ok_or_else(|| Error::unusable("the authority's certificate", "it has no key that can be read"))
    }
}

/// Believes servers of the authority with this hash, which they must show.
#[derive(Debug)]
struct Pinned {
    hash: KeyHash,
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn verifier(hash: KeyHash, provider: Arc<CryptoProvider>) -> Arc<Judged<Self>> {
        Arc::new(Judged { judge: Pinned { hash, provider: provider.clone() }, provider })
    }
}

impl Judge for Pinned {
    fn judge(&self, shown: Shown<'_>) -> Result<(), rustls::Error> {
        let other = || CertificateError::Other(OtherError(Arc::new(OtherAuthority(self.hash))));
        let authority = self.hash.find(shown.others).ok_or_else(other)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        // Its name and its signature, as of any other server.
        Shown { others: &[], ..shown }.by(&*verifier)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use rustls::client::danger::ServerCertVerifier;
    use rustls::pki_types::{ServerName, UnixTime};

    use super::*;
    use crate::{Authority, HostNames, LiveIdentity};

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn host(authority: &Authority) -> LiveIdentity {
        let address = [10, 73, 0, 1].into();
        let names = HostNames {
            name: "n1".into(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        LiveIdentity::new(authority.host_identity(&names, now()).unwrap()).unwrap()
    }

    fn verify(hash: KeyHash, shown: &LiveIdentity, name: &str) -> Result<(), rustls::Error> {
        let shown = shown.shown();
        let chain = &shown.cert;
        let pinned = Pinned::verifier(hash, Arc::new(ring_provider::default_provider()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let since = UnixTime::since_unix_epoch(now().duration_since(SystemTime::UNIX_EPOCH).unwrap());
        pinned.verify_server_cert(&chain[0], &chain[1..], &name, &[], since).map(drop)
    }

    #[test]
    fn a_server_is_believed_that_shows_the_authority_with_the_hash_and_is_its_own() {
        let (ours, other) = (Authority::create("a", now()).unwrap(), Authority::create("a", now()).unwrap());
        let trust = ours.trust().unwrap();
        let hash = trust.hash().unwrap();
        let shown = host(&ours).showing(&trust);
        verify(hash, &shown, "10.73.0.1").unwrap();
        assert_eq!(hash.authority_of(&shown.shown().cert).unwrap().hash().unwrap(), hash);

        for (hash, shown, name) in [
            (hash, shown.clone(), "10.73.0.9"),
            // Without the authority, with another one, and one that shows the right authority and isn't its own.
            (hash, host(&ours), "10.73.0.1"),
            (hash, host(&other).showing(&other.trust().unwrap()), "10.73.0.1"),
            (hash, host(&other).showing(&trust), "10.73.0.1"),
            (other.trust().unwrap().hash().unwrap(), shown, "10.73.0.1"),
        ] {
            verify(hash, &shown, name).unwrap_err();
        }
    }
}
