//! A key that never leaves its machine, and the requests for certificates that are made with it.

use std::path::Path;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::authority::subject_name;
use crate::{CertificateRequest, Error, Identity, SecretText, Subject, folder};

const WHAT: &str = "the key";

/// A key on P-256 for which others make certificates.
#[derive(Debug)]
pub struct OwnKey {
    pem: SecretText,
    pair: KeyPair,
}

impl OwnKey {
    /// The key `NAME.key` in a folder, made there (mode 0600) if there is none: one that asks again asks for the same key.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Unusable`].
    pub fn load_or_create(folder: &Path, name: &str) -> Result<Self, Error> {
        let path = folder.join(format!("{name}.key"));
        if path.exists() {
            return OwnKey::from_pem(SecretText::new(folder::read(&path)?));
        }
        let pair =
            KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|error| Error::unusable(WHAT, error))?;
        let key = OwnKey::of_pair(pair);
        folder::write_secret(&path, key.pem.expose())?;
        Ok(key)
    }

    pub(crate) fn of_pair(pair: KeyPair) -> Self {
        OwnKey { pem: SecretText::new(pair.serialize_pem()), pair }
    }

    pub(crate) fn pair(&self) -> &KeyPair {
        &self.pair
    }

    /// The key of an identity.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub(crate) fn of(identity: &Identity) -> Result<Self, Error> {
        OwnKey::from_pem(identity.key_pem().clone())
    }

    fn from_pem(pem: SecretText) -> Result<Self, Error> {
        let pair = KeyPair::from_pem(pem.expose()).map_err(|error| Error::unusable(WHAT, error))?;
        Ok(OwnKey { pem, pair })
    }

    /// A request for a certificate of this key, as an authority reads it.
    pub(crate) fn request_read(&self, subject: &Subject) -> Result<CertificateRequest, Error> {
        CertificateRequest::from_pem(self.request(subject)?.as_bytes())
    }

    /// A request in PEM (PKCS #10) for a certificate of this key.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn request(&self, subject: &Subject) -> Result<String, Error> {
        let wrong = |error: rcgen::Error| Error::issue(&subject.common_name, error);
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        subject_name(&mut params.distinguished_name, subject);
        params.serialize_request(&self.pair).and_then(|request| request.pem()).map_err(wrong)
    }

    /// The identity in this key and the certificate that was made for it.
    ///
    /// # Errors
    /// [`Error::Unusable`], and [`Error::NotAPair`] if the certificate is another key's.
    pub fn identity(&self, certificate_pem: &str) -> Result<Identity, Error> {
        let identity = Identity::from_pem(certificate_pem, self.pem.clone())?;
        let chain = identity.chain()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| Error::unusable("the certificate", error))?;
        if certificate.public_key().subject_public_key.data != self.pair.public_key_raw() {
            return Err(Error::NotAPair(certificate.subject().to_string()));
        }
        Ok(identity)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Authority, HostNames, Renewal, Validity};

    #[test]
    fn a_host_gets_a_certificate_for_what_it_is_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::create("a", now).unwrap();
        let address: IpAddr = [10, 73, 0, 2].into();
        let host = HostNames {
            name: "n2".into(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        let key = OwnKey::load_or_create(folder.path(), "n2").unwrap();
        let asked = |subject: &Subject| key.request_read(subject).unwrap();
        let validity = Validity::lasting(now, Validity::OF_HOSTS);
        let mut request = asked(&host.subject());
        // What a request asks for beside its subject is the authority's to say.
        request.names.push("kubernetes.example".into());
        let certificate = authority.sign_host(&request, &host, validity).unwrap();
        let identity = key.identity(&certificate).unwrap();
        assert_eq!(
            identity.key_hash().unwrap(),
            request.key_hash().unwrap(),
            "the machine is known by its key"
        );
        assert!(!identity.certificate_pem().is_empty());
        let der = crate::identity::certificates("it", &certificate).unwrap().remove(0);
        let (_, parsed) = x509_parser::parse_x509_certificate(&der).unwrap();
        let names = format!("{:?}", parsed.subject_alternative_name().unwrap().unwrap().value);
        assert!(names.contains("\"n2\"") && !names.contains("example"), "{names}");

        let at = |days: u64| Renewal {
            life: Validity::OF_HOSTS,
            early: 0,
            now: now + Duration::from_secs(days * 24 * 60 * 60),
        };
        assert!(authority.renew_host(&identity, &host, at(59)).unwrap().is_none());
        // In its time, and also where it was off for years.
        for days in [60, 3000] {
            let renewed = authority.renew_host(&identity, &host, at(days)).unwrap().unwrap();
            assert_eq!(renewed.validity().unwrap(), Validity::lasting(at(days).now, Validity::OF_HOSTS));
            assert_eq!(renewed.key_hash().unwrap(), identity.key_hash().unwrap(), "the same machine");
        }
        let moved = HostNames { address: [10, 73, 0, 9].into(), ..host.clone() };
        let renewed = authority.renew_host(&identity, &moved, at(1)).unwrap().expect("it moved");
        assert!(authority.renew_host(&renewed, &moved, at(2)).unwrap().is_none(), "once");

        let again = OwnKey::load_or_create(folder.path(), "n2").unwrap();
        again.identity(&certificate).unwrap();
        let other = OwnKey::load_or_create(folder.path(), "n3").unwrap();
        assert!(matches!(other.identity(&certificate), Err(Error::NotAPair(_))));

        let masters = Some("system:masters".to_owned());
        for subject in [
            Subject { common_name: "system:node:n1".into(), ..host.subject() },
            Subject { organization: masters, ..host.subject() },
            Subject { organization: None, ..host.subject() },
        ] {
            authority.sign_host(&asked(&subject), &host, validity).unwrap_err();
            authority.sign_front_proxy(&asked(&subject), validity).unwrap_err();
        }
    }
}
