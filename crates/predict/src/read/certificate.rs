//! Certificates: whom they name.

use std::net::IpAddr;

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

/// A certificate of a server.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Certificate {
    pub(crate) file: String,
    /// The addresses and names that it is for.
    pub(crate) names: Vec<String>,
}

/// The first certificate of a text in PEM, which is the one that a server shows; none where that is no certificate, or an authority's.
pub(crate) fn certificate(file: &str, text: &str) -> Option<Certificate> {
    let pem = Pem::iter_from_buffer(text.as_bytes())
        .filter_map(Result::ok)
        .find(|pem| pem.label == "CERTIFICATE")?;
    let parsed = pem.parse_x509().ok()?;
    let names = parsed.subject_alternative_name().ok()??.value.general_names.iter();
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from))
                .ok()
                .map(|address| address.to_string())
        }
        _ => None,
    });
    Some(Certificate { file: file.to_owned(), names: names.collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_certificate_names() {
        let text = include_str!("../../tests/files/apiserver.crt");
        let read = certificate("a.crt", text).unwrap();
        assert_eq!(read.names, ["kubernetes", "kubernetes.default.svc", "10.0.0.1", "fd00::1"]);
        assert_eq!(
            certificate("a.crt", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"),
            None
        );
        assert_eq!(certificate("a.crt", ""), None);
    }
}
