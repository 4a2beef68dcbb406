//! Requests for certificates (PKCS #10, RFC 2986), as somebody else made them.

use std::net::IpAddr;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Name};
use x509_parser::x509::AttributeTypeAndValue;

use crate::Error;

const WHAT: &str = "the request";

/// A request for a certificate. Its maker has shown that the key is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateRequest {
    /// The subject's common name, empty if it has none: the user.
    pub common_name: String,
    /// The subject's organizations, in their order: the groups.
    pub organizations: Vec<String>,
    /// The names of servers that it asks for.
    pub names: Vec<String>,
    /// The addresses that it asks for.
    pub addresses: Vec<IpAddr>,
    /// The mail addresses that it asks for.
    pub emails: Vec<String>,
    /// The URIs that it asks for.
    pub uris: Vec<String>,
    /// The subject and the key as they stand there, in DER: a certificate has them unchanged.
    pub(crate) subject: Vec<u8>,
    pub(crate) public_key: Vec<u8>,
}

impl CertificateRequest {
    /// Reads a request in PEM and checks that it is signed with the key that it is for.
    ///
    /// # Errors
    /// [`Error::Unusable`]: it is no such request, is signed by another key or in a way that isn't known, or its
    /// subject can be read in two ways.
    pub fn from_pem(pem: &[u8]) -> Result<Self, Error> {
        let der = CertificateSigningRequestDer::from_pem_slice(pem);
        let der = der.map_err(|error| Error::unusable(WHAT, error))?;
        let (rest, request) =
            X509CertificationRequest::from_der(&der).map_err(|error| Error::unusable(WHAT, error))?;
        if !rest.is_empty() {
            return Err(Error::unusable(WHAT, "something follows it"));
        }
        request
            .verify_signature()
            .map_err(|_| Error::unusable(WHAT, "its signature is not one of its key that can be checked"))?;
        let info = &request.certification_request_info;
        let common_names = texts(info.subject.iter_common_name())?;
        if common_names.len() > 1 {
            return Err(Error::unusable(WHAT, "its subject has several common names"));
        }
        let mut read = CertificateRequest {
            common_name: common_names.into_iter().next().unwrap_or_default(),
            organizations: texts(info.subject.iter_organization())?,
            names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            uris: Vec::new(),
            subject: X509Name::as_raw(&info.subject).to_vec(),
            public_key: info.subject_pki.raw.to_vec(),
        };
        for extension in request.requested_extensions().into_iter().flatten() {
            if let ParsedExtension::SubjectAlternativeName(alternatives) = extension {
                alternatives.general_names.iter().try_for_each(|name| read.take(name))?;
            }
        }
        Ok(read)
    }

    fn take(&mut self, name: &GeneralName<'_>) -> Result<(), Error> {
        match name {
            GeneralName::DNSName(name) => self.names.push((*name).to_owned()),
            GeneralName::RFC822Name(email) => self.emails.push((*email).to_owned()),
            GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
            GeneralName::IPAddress(bytes) => self.addresses.push(address(bytes)?),
            // What can't be asked for is not granted.
            _ => {}
        }
        Ok(())
    }
}

/// What can't be read here is read by nobody else either: no name hides in a text of another kind.
fn texts<'a>(values: impl Iterator<Item = &'a AttributeTypeAndValue<'a>>) -> Result<Vec<String>, Error> {
    let text = |value: &AttributeTypeAndValue<'_>| value.as_str().map(str::to_owned);
    let all: Result<Vec<String>, _> = values.map(text).collect();
    all.map_err(|_| Error::unusable(WHAT, "its subject has a name that isn't text"))
}

pub(crate) fn address(bytes: &[u8]) -> Result<IpAddr, Error> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let address = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.map_err(|_| Error::unusable(WHAT, "it has an address that is none"))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()));
        params.subject_alt_names.push(SanType::URI("spiffe://a".try_into().unwrap()));
        params.subject_alt_names.push(SanType::Rfc822Name("a@example".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "jane");
        params.distinguished_name.push(DnType::OrganizationName, "dev");
        params
    }

    #[test]
    fn a_request_says_who_asks_for_which_names() {
        let key = KeyPair::generate().unwrap();
        let pem = params().serialize_request(&key).unwrap().pem().unwrap();
        let request = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
        assert_eq!(
            (request.common_name.as_str(), &request.organizations[..]),
            ("jane", &["dev".to_owned()][..])
        );
        assert_eq!(request.names, ["a.example"]);
        assert_eq!(request.addresses, [IpAddr::from([10, 0, 0, 1])]);
        assert_eq!((&request.uris[0][..], &request.emails[0][..]), ("spiffe://a", "a@example"));
    }

    #[test]
    fn what_is_no_request_or_signed_by_another_is_refused() {
        let key = KeyPair::generate().unwrap();
        let good = params().serialize_request(&key).unwrap().der().to_vec();
        let pem = |der: &[u8]| {
            use base64::Engine;
            let text = base64::engine::general_purpose::STANDARD.encode(der);
            format!("-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n")
        };
        assert!(CertificateRequest::from_pem(pem(&good).as_bytes()).is_ok());
        let mut forged = good.clone();
        let at = forged.windows(4).position(|window| window == b"jane").unwrap();
        forged[at] = b'J';
        let mut longer = good.clone();
        longer.push(0);
        for der in [&forged[..], &longer[..], &good[..good.len() - 1], b"", b"\x30\x80\x00\x00"] {
            assert!(CertificateRequest::from_pem(pem(der).as_bytes()).is_err(), "{der:?}");
        }
        assert!(CertificateRequest::from_pem(b"nothing").is_err());
    }

    #[test]
    fn no_change_of_a_request_panics() {
        let key = KeyPair::generate().unwrap();
        let good = params().serialize_request(&key).unwrap().der().to_vec();
        for at in 0..good.len() {
            for bit in 0..8 {
                let mut changed = good.clone();
                changed[at] ^= 1 << bit;
                use base64::Engine;
                let text = base64::engine::general_purpose::STANDARD.encode(&changed);
                let pem = format!(
                    "-----BEGIN CERTIFICATE REQUEST-----\n{text}\n-----END CERTIFICATE REQUEST-----\n"
                );
                // A signature has two forms in which it is right; nothing else may be taken.
                if let Ok(request) = CertificateRequest::from_pem(pem.as_bytes()) {
                    assert_eq!(request.common_name, "jane", "byte {at}, bit {bit}");
                }
            }
        }
    }
}
