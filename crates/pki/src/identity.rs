//! A certificate with its key: who somebody is.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;

use crate::request::address;
use crate::{Error, SecretText, Validity, folder};

/// A certificate and its private key.
#[derive(Debug, Clone)]
pub struct Identity {
    certificate_pem: String,
    key_pem: SecretText,
}

impl Identity {
    /// The identity in a certificate (chain) and a key, both PEM.
    ///
    /// # Errors
    /// [`Error::Unusable`] if either can't be read.
    pub fn from_pem(certificate_pem: impl Into<String>, key_pem: SecretText) -> Result<Self, Error> {
        let identity = Identity { certificate_pem: certificate_pem.into(), key_pem };
        identity.chain()?;
        identity.key()?;
        Ok(identity)
    }

    /// The certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key as PEM.
    pub fn key_pem(&self) -> &SecretText {
        &self.key_pem
    }

    /// Writes `NAME.crt` and `NAME.key` (mode 0600) into a folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path, name: &str) -> Result<(), Error> {
        // The key first: where a crash leaves a certificate, its key is there too.
        folder::write_secret(&folder.join(format!("{name}.key")), self.key_pem.expose())?;
        folder::write_public(&folder.join(format!("{name}.crt")), &self.certificate_pem)
    }

    /// Reads what [`save`](Identity::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load(folder: &Path, name: &str) -> Result<Self, Error> {
        let certificate = folder::read(&folder.join(format!("{name}.crt")))?;
        let key = SecretText::new(folder::read(&folder.join(format!("{name}.key")))?);
        Identity::from_pem(certificate, key)
    }

    /// When its certificate is valid.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn validity(&self) -> Result<Validity, Error> {
        Validity::of_certificate(&self.certificate_pem)
            .ok_or_else(|| Error::unusable("the certificate", "it doesn't say when it is valid"))
    }

    /// The names and the addresses of servers in its certificate.
    pub(crate) fn names(&self) -> Result<(BTreeSet<String>, BTreeSet<IpAddr>), Error> {
        let chain = self.chain()?;
        let wrong = |why: String| Error::unusable("the certificate", why);
        let (_, certificate) =
            x509_parser::parse_x509_certificate(&chain[0]).map_err(|error| wrong(error.to_string()))?;
        let alternatives =
            certificate.subject_alternative_name().map_err(|error| wrong(error.to_string()))?;
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for name in alternatives.iter().flat_map(|alternatives| &alternatives.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    names.insert((*name).to_owned());
                }
                GeneralName::IPAddress(bytes) => {
                    addresses.insert(address(bytes)?);
                }
                _ => {}
            }
        }
        Ok((names, addresses))
    }

    pub(crate) fn chain(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        certificates("the certificate", &self.certificate_pem)
    }

    pub(crate) fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(self.key_pem.expose().as_bytes())
            .map_err(|error| Error::unusable("the private key", error))
    }
}

/// All certificates in a PEM text, at least one.
pub(crate) fn certificates(what: &str, pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match list {
        Ok(list) if list.is_empty() => Err(Error::unusable(what, "there is no certificate in it")),
        Ok(list) => Ok(list),
        Err(error) => Err(Error::unusable(what, error)),
    }
}
