//! Certificates for requests that somebody else made: subject and key as they stand in the request, the rest as it is
//! granted (RFC 5280).
//!
//! `rcgen` knows a subject of one organization only, and a user may be in several groups; so the certificate is
//! put together here, by `yasna`, with which `rcgen` writes its own.

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use rcgen::{KeyPair, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

use crate::identity::certificates;
use crate::{CertificateRequest, Error, Validity};

/// What a certificate may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Usage {
    /// Signing, as every handshake of TLS 1.3 does.
    DigitalSignature,
    /// Encrypting keys, as handshakes with RSA did.
    KeyEncipherment,
    /// Saying who one is to servers.
    ClientAuth,
    /// Saying who one is to clients.
    ServerAuth,
}

const ECDSA_WITH_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
/// Extensions (RFC 5280, 4.2.1).
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const ALTERNATIVE_NAMES: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
/// Purposes of the extended key usage (4.2.1.12).
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
/// Version 3, which counts from 0: the first with extensions.
const VERSION: u64 = 2;

/// The certificate, in DER, that the authority with this certificate and key gives for a request.
pub(crate) fn certificate(
    authority_pem: &str,
    key: &KeyPair,
    request: &CertificateRequest,
    usages: &[Usage],
    validity: Validity,
) -> Result<Vec<u8>, Error> {
    let wrong = |why: String| Error::issue(&request.common_name, why);
    let authority = certificates("the authority's certificate", authority_pem)?.remove(0);
    let (_, authority) =
        x509_parser::parse_x509_certificate(&authority).map_err(|error| wrong(error.to_string()))?;
    let until = authority.validity().not_after.timestamp();
    let last = Timestamp::from_second(until).map_err(|error| wrong(error.to_string()))?;
    let moment = |time: SystemTime| Timestamp::try_from(time).map_err(|error| wrong(error.to_string()));
    let (from, until) = (moment(validity.from)?, moment(validity.until)?.min(last));
    if until <= from {
        return Err(wrong("the authority's own certificate is over".to_owned()));
    }
    let (from, until) = (Time::of(from).map_err(wrong)?, Time::of(until).map_err(wrong)?);
    let serial_number = serial_number().map_err(wrong)?;
    let body = construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u64(VERSION));
            writer.next().write_bigint_bytes(&serial_number, true);
            algorithm(writer.next());
            writer.next().write_der(authority.subject().as_raw());
            writer.next().write_sequence(|writer| {
                from.write(writer.next());
                until.write(writer.next());
            });
            writer.next().write_der(&request.subject);
            writer.next().write_der(&request.public_key);
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| extensions(writer, &authority, request, usages));
            });
        });
    });
    let signature = key.sign(&body).map_err(|error| wrong(error.to_string()))?;
    Ok(construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&body);
            algorithm(writer.next());
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

pub(crate) fn algorithm(writer: DERWriter<'_>) {
    writer.write_sequence(|writer| writer.next().write_oid(&oid(ECDSA_WITH_SHA256)));
}

fn extensions(
    writer: &mut DERWriterSeq<'_>,
    authority: &X509Certificate<'_>,
    request: &CertificateRequest,
    usages: &[Usage],
) {
    let key_usage = usages.iter().fold(0_u8, |bits, usage| match usage {
        Usage::DigitalSignature => bits | 0x80,
        Usage::KeyEncipherment => bits | 0x20,
        Usage::ClientAuth | Usage::ServerAuth => bits,
    });
    if key_usage != 0 {
        // DER writes no zero bits behind the last that is set.
        let length = 8 - key_usage.trailing_zeros() as usize;
        extension(writer.next(), KEY_USAGE, true, |writer| writer.write_bitvec_bytes(&[key_usage], length));
    }
    let purpose = |usage: &Usage| match usage {
        Usage::ServerAuth => Some(SERVER_AUTH),
        Usage::ClientAuth => Some(CLIENT_AUTH),
        Usage::DigitalSignature | Usage::KeyEncipherment => None,
    };
    let purposes: Vec<&[u64]> = usages.iter().filter_map(purpose).collect();
    if !purposes.is_empty() {
        extension(writer.next(), EXTENDED_KEY_USAGE, false, |writer| {
            writer.write_sequence(|writer| {
                purposes.iter().for_each(|purpose| writer.next().write_oid(&oid(purpose)));
            });
        });
    }
    // Nobody's authority.
    extension(writer.next(), BASIC_CONSTRAINTS, true, |writer| writer.write_sequence(|_| {}));
    let key = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    });
    if let Some(key) = key {
        extension(writer.next(), AUTHORITY_KEY, false, |writer| {
            writer.write_sequence(|writer| tagged(writer, 0, key));
        });
    }
    let names = [&request.emails, &request.names, &request.uris];
    if names.iter().any(|names| !names.is_empty()) || !request.addresses.is_empty() {
        extension(writer.next(), ALTERNATIVE_NAMES, request.common_name.is_empty(), |writer| {
            writer.write_sequence(|writer| alternative_names(writer, request));
        });
    }
}

/// As `GeneralName`s (RFC 5280, 4.2.1.6).
fn alternative_names(writer: &mut DERWriterSeq<'_>, request: &CertificateRequest) {
    request.emails.iter().for_each(|email| tagged(writer, 1, email.as_bytes()));
    request.names.iter().for_each(|name| tagged(writer, 2, name.as_bytes()));
    request.uris.iter().for_each(|uri| tagged(writer, 6, uri.as_bytes()));
    for address in &request.addresses {
        match address {
            IpAddr::V4(address) => tagged(writer, 7, &address.octets()),
            IpAddr::V6(address) => tagged(writer, 7, &address.octets()),
        }
    }
}

/// Bytes whose tag says what they are.
fn tagged(writer: &mut DERWriterSeq<'_>, tag: u64, bytes: &[u8]) {
    writer.next().write_tagged_implicit(Tag::context(tag), |writer| writer.write_bytes(bytes));
}

fn extension(writer: DERWriter<'_>, name: &[u64], critical: bool, value: impl FnOnce(DERWriter<'_>)) {
    writer.write_sequence(|writer| {
        writer.next().write_oid(&oid(name));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&construct_der(value));
    });
}

pub(crate) fn oid(arcs: &[u64]) -> ObjectIdentifier {
    ObjectIdentifier::from_slice(arcs)
}

/// Drawn at random; positive, and of one length.
fn serial_number() -> Result<[u8; 16], String> {
    let mut number = [0; 16];
    SystemRandom::new().fill(&mut number).map_err(|_| "there is no randomness to be had".to_owned())?;
    number[0] = number[0] & 0x7f | 0x40;
    Ok(number)
}

/// A moment as it stands in a certificate: in whole seconds, with two digits of the year until 2049, as RFC 5280 (4.1.2.5)
/// demands.
enum Time {
    Until2049(UTCTime),
    Later(GeneralizedTime),
}

impl Time {
    fn of(at: Timestamp) -> Result<Self, String> {
        let whole = Timestamp::from_second(at.as_second()).map_err(|error| error.to_string())?;
        let at = SystemTime::from(whole);
        let until_2049 = UTCTime::from_datetime_opt(at.into()).map(Time::Until2049);
        until_2049
            .or_else(|| GeneralizedTime::from_datetime_opt(at.into()).map(Time::Later))
            .ok_or_else(|| format!("no certificate can say {whole}"))
    }

    fn write(&self, writer: DERWriter<'_>) {
        match self {
            Time::Until2049(time) => writer.write_utctime(time),
            Time::Later(time) => writer.write_generalized_time(time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn years_are_written_as_their_century_demands() {
        let at = |text: &str| construct_der(|writer| Time::of(text.parse().unwrap()).unwrap().write(writer));
        assert_eq!(at("2026-01-02T03:04:05.6Z"), b"\x17\x0d260102030405Z");
        assert_eq!(at("2049-12-31T23:59:59Z"), b"\x17\x0d491231235959Z");
        assert_eq!(at("2050-01-01T00:00:00Z"), b"\x18\x0f20500101000000Z");
        assert!(Time::of("-000001-01-01T00:00:00Z".parse().unwrap()).is_err());
    }
}
