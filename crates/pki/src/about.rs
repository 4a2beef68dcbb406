//! What a certificate says of itself, for people.

use crate::Validity;
use crate::identity::certificates;

/// Whose a certificate is, who signed it, and when it is valid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Whose it is, such as `O=system:nodes, CN=system:node:n1`.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// When it is valid.
    pub validity: Validity,
}

impl About {
    /// The first certificate in a PEM text; nothing if there is none.
    pub fn certificate(pem: &str) -> Option<Self> {
        let certificate = certificates("the certificate", pem).ok()?.into_iter().next()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        Some(About {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            validity: Validity::of_certificate(pem)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{Authority, Subject};

    #[test]
    fn a_certificate_says_whose_it_is_and_who_signed_it() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let authority = Authority::create("an authority", now).unwrap();
        let subject = Subject { common_name: "jane".into(), organization: Some("devs".into()) };
        let validity = Validity::lasting(now, Validity::OF_HOSTS);
        let identity = authority.issue(&subject, &[], &[], validity).unwrap();
        let about = About::certificate(identity.certificate_pem()).unwrap();
        assert_eq!((about.subject.as_str(), about.issuer.as_str()), ("O=devs, CN=jane", "CN=an authority"));
        assert_eq!(about.validity, validity);
        assert_eq!(About::certificate("nothing"), None);
    }
}
