//! Requests for users' certificates, with several groups, which `rcgen` can't put into one subject.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SigningKey};
use yasna::{DERWriter, Tag, construct_der};

use crate::authority::pem;
use crate::sign::{algorithm, oid};
use crate::{Error, OwnKey};

/// Attributes of names (X.520).
const COMMON_NAME: &[u64] = &[2, 5, 4, 3];
const ORGANIZATION: &[u64] = &[2, 5, 4, 10];

impl OwnKey {
    /// A new key, in memory alone.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn create() -> Result<Self, Error> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
            .map_err(|error| Error::unusable("a new key", error))?;
        Ok(OwnKey::of_pair(pair))
    }

    /// A request in PEM (PKCS #10, RFC 2986) for a certificate of this key that names a user, and groups in their order.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn user_request(&self, user: &str, groups: &[String]) -> Result<String, Error> {
        let body = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_u64(0);
                writer.next().write_sequence(|writer| {
                    groups.iter().for_each(|group| attribute(writer.next(), ORGANIZATION, group));
                    attribute(writer.next(), COMMON_NAME, user);
                });
                writer.next().write_der(&self.pair().subject_public_key_info());
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_set(|_| {}));
            });
        });
        let signature = self.pair().sign(&body).map_err(|error| Error::issue(user, error))?;
        let request = construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&body);
                algorithm(writer.next());
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem("CERTIFICATE REQUEST", &request))
    }
}

/// A part of a name.
fn attribute(writer: DERWriter<'_>, kind: &[u64], text: &str) {
    writer.write_set(|writer| {
        writer.next().write_sequence(|writer| {
            writer.next().write_oid(&oid(kind));
            writer.next().write_utf8_string(text);
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CertificateRequest;

    #[test]
    fn a_user_s_request_is_read_as_it_was_made() {
        let key = OwnKey::create().unwrap();
        for groups in [vec![], vec!["dev".to_owned(), "ops ä".to_owned()]] {
            let pem = key.user_request("jane@example.com", &groups).unwrap();
            let read = CertificateRequest::from_pem(pem.as_bytes()).unwrap();
            assert_eq!((read.common_name.as_str(), &read.organizations), ("jane@example.com", &groups));
            assert!(read.names.is_empty() && read.addresses.is_empty());
        }
    }
}
