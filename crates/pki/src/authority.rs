//! The cluster's own authority.

use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use crate::identity::certificates;
use crate::sign::{self, Usage};
use crate::{CertificateRequest, Error, HeartbeatKey, Identity, SecretText, Trust, Validity, folder};

/// What the files of the authority that the hosts believe are called, and below it those of the one that signs requests.
const NAME: &str = "ca";
const REQUESTS_NAME: &str = "requests-ca";
/// How long an authority lasts: it isn't renewed, and all that it signed ends with it.
const YEARS: u32 = 10;

/// Whom a certificate is for. Kubernetes takes the common name for the user and the organization for the
/// group ("X509 client certificates" in its documentation on authentication).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The user's name.
    pub common_name: String,
    /// The user's group, if there is one.
    pub organization: Option<String>,
}

/// A key that signs certificates, with its own one: ECDSA on P-256.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    key_pem: SecretText,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes a new authority that is valid for ten years.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn create(name: &str, now: SystemTime) -> Result<Self, Error> {
        let wrong = |error: rcgen::Error| Error::issue(name, error);
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
        let subject = Subject { common_name: name.to_owned(), organization: None };
        let mut params = parameters(&subject, Validity::years(now, YEARS));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate_pem = params.self_signed(&key).map_err(wrong)?.pem();
        let key_pem = SecretText::new(key.serialize_pem());
        Ok(Authority { certificate_pem, key_pem, issuer: Issuer::new(params, key) })
    }

    /// The authority in a certificate and its key.
    ///
    /// # Errors
    /// [`Error::Unusable`], or [`Error::NotAPair`] if the key is another one's.
    pub fn from_pem(certificate_pem: impl Into<String>, key_pem: SecretText) -> Result<Self, Error> {
        const CERTIFICATE: &str = "the authority's certificate";
        let certificate_pem = certificate_pem.into();
        let certificate = certificates(CERTIFICATE, &certificate_pem)?.remove(0);
        let key = KeyPair::from_pem(key_pem.expose())
            .map_err(|error| Error::unusable("the authority's key", error))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&certificate)
            .map_err(|error| Error::unusable(CERTIFICATE, error))?;
        if !parsed.is_ca() {
            return Err(Error::unusable(CERTIFICATE, "it is not an authority's"));
        }
        if parsed.public_key().subject_public_key.data != key.public_key_raw() {
            return Err(Error::NotAPair(parsed.subject().to_string()));
        }
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|error| Error::unusable(CERTIFICATE, error))?;
        Ok(Authority { certificate_pem, key_pem, issuer })
    }

    /// Its certificate as PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// When its certificate is valid.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn validity(&self) -> Result<Validity, Error> {
        Validity::of_certificate(&self.certificate_pem)
            .ok_or_else(|| Error::unusable("the authority's certificate", "it doesn't say when it is valid"))
    }

    /// Its private key as PEM.
    pub fn key_pem(&self) -> &SecretText {
        &self.key_pem
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600) into a folder.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save(&self, folder: &Path) -> Result<(), Error> {
        self.save_as(folder, NAME)
    }

    /// Writes `requests-ca.crt` and `requests-ca.key` (mode 0600) into a folder: the authority that signs what
    /// users ask for. It is another one than the cluster's own, so that who gets a certificate by asking is never
    /// taken for a member of the store, and so that the cluster's own key need not lie on the hosts.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn save_for_requests(&self, folder: &Path) -> Result<(), Error> {
        self.save_as(folder, REQUESTS_NAME)
    }

    /// Reads what [`save_for_requests`](Authority::save_for_requests) wrote.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Unusable`] and [`Error::NotAPair`].
    pub fn load_for_requests(folder: &Path) -> Result<Self, Error> {
        Authority::load_from(folder, REQUESTS_NAME)
    }

    fn save_as(&self, folder: &Path, name: &str) -> Result<(), Error> {
        // The key first: where a crash leaves a certificate, its key is there too.
        folder::write_secret(&folder.join(format!("{name}.key")), self.key_pem.expose())?;
        folder::write_public(&folder.join(format!("{name}.crt")), &self.certificate_pem)
    }

    fn load_from(folder: &Path, name: &str) -> Result<Self, Error> {
        let certificate = folder::read(&folder.join(format!("{name}.crt")))?;
        let key = SecretText::new(folder::read(&folder.join(format!("{name}.key")))?);
        Authority::from_pem(certificate, key)
    }

    /// Reads what [`save`](Authority::save) wrote.
    ///
    /// # Errors
    /// [`Error::File`], [`Error::Unusable`] and [`Error::NotAPair`].
    pub fn load(folder: &Path) -> Result<Self, Error> {
        Authority::load_from(folder, NAME)
    }

    /// What others need in order to believe this authority.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn trust(&self) -> Result<Trust, Error> {
        Trust::from_pem(self.certificate_pem.clone())
    }

    /// The key that the cluster's heartbeats are signed with.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn heartbeat_key(&self) -> Result<HeartbeatKey, Error> {
        HeartbeatKey::derive(self.issuer.key().serialized_der())
    }

    /// The certificate, as PEM, for a request that somebody else made: with its subject, its key and all names in it,
    /// for these uses. It ends with the authority's own at the latest.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[Usage],
        validity: Validity,
    ) -> Result<String, Error> {
        let der = sign::certificate(&self.certificate_pem, self.issuer.key(), request, usages, validity)?;
        Ok(pem("CERTIFICATE", &der))
    }

    /// Makes a key and a certificate for it. With names or addresses it is for servers and for clients,
    /// without any for clients alone.
    ///
    /// # Errors
    /// [`Error::Issue`], for example for a name that can't stand in a certificate.
    pub fn issue(
        &self,
        subject: &Subject,
        names: &[String],
        addresses: &[IpAddr],
        validity: Validity,
    ) -> Result<Identity, Error> {
        let wrong = |error: rcgen::Error| Error::issue(&subject.common_name, error);
        let mut params = parameters(subject, validity);
        for name in names {
            params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into().map_err(wrong)?));
        }
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !params.subject_alt_names.is_empty() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(wrong)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(wrong)?;
        Identity::from_pem(certificate.pem(), SecretText::new(key.serialize_pem()))
    }
}

/// Lines of 64 characters, as RFC 7468 demands.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        out.push_str(&String::from_utf8_lossy(line));
        out.push('\n');
    }
    out + &format!("-----END {label}-----\n")
}

fn parameters(subject: &Subject, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    subject_name(&mut params.distinguished_name, subject);
    params.not_before = validity.from.into();
    params.not_after = validity.until.into();
    params
}

/// Puts a subject into a name.
pub(crate) fn subject_name(name: &mut DistinguishedName, subject: &Subject) {
    if let Some(organization) = &subject.organization {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, subject.common_name.as_str());
}
