//! Certificates for requests that somebody else made: subject and key as they stand in the request, the rest as it is
//! granted (RFC 5280).
//!
//! `rcgen` knows a subject of one organization only, and a user may be in several groups; so the certificate is
//! put together here.

use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rcgen::{KeyPair, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::ParsedExtension;

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

const ECDSA_WITH_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const KEY_USAGE: u8 = 15;
const ALTERNATIVE_NAMES: u8 = 17;
const BASIC_CONSTRAINTS: u8 = 19;
const AUTHORITY_KEY: u8 = 35;
const EXTENDED_KEY_USAGE: u8 = 37;

mod tag {
    pub const BOOLEAN: u8 = 0x01;
    pub const INTEGER: u8 = 0x02;
    pub const BITS: u8 = 0x03;
    pub const BYTES: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const SEQUENCE: u8 = 0x30;
    pub const UTC_TIME: u8 = 0x17;
    pub const GENERALIZED_TIME: u8 = 0x18;
}

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
    let algorithm = sequence(&[tlv(tag::OID, ECDSA_WITH_SHA256)]);
    let body = sequence(&[
        tlv(0xa0, &tlv(tag::INTEGER, &[2])),
        tlv(tag::INTEGER, &serial_number().map_err(wrong)?),
        algorithm.clone(),
        authority.subject().as_raw().to_vec(),
        sequence(&[time(from), time(until)]),
        request.subject.clone(),
        request.public_key.clone(),
        tlv(0xa3, &sequence(&extensions(&authority, request, usages))),
    ]);
    let signature = key.sign(&body).map_err(|error| wrong(error.to_string()))?;
    Ok(sequence(&[body, algorithm, bits(0, &signature)]))
}

fn extensions(
    authority: &X509Certificate<'_>,
    request: &CertificateRequest,
    usages: &[Usage],
) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    let key_usage = usages.iter().fold(0_u8, |bits, usage| match usage {
        Usage::DigitalSignature => bits | 0x80,
        Usage::KeyEncipherment => bits | 0x20,
        Usage::ClientAuth | Usage::ServerAuth => bits,
    });
    if key_usage != 0 {
        let unused = u8::try_from(key_usage.trailing_zeros()).unwrap_or(0);
        list.push(extension(KEY_USAGE, true, &bits(unused, &[key_usage])));
    }
    let purposes: Vec<Vec<u8>> = usages
        .iter()
        .filter_map(|usage| match usage {
            Usage::ServerAuth => Some(1),
            Usage::ClientAuth => Some(2),
            Usage::DigitalSignature | Usage::KeyEncipherment => None,
        })
        .map(|purpose| tlv(tag::OID, &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, purpose]))
        .collect();
    if !purposes.is_empty() {
        list.push(extension(EXTENDED_KEY_USAGE, false, &sequence(&purposes)));
    }
    // Nobody's authority.
    list.push(extension(BASIC_CONSTRAINTS, true, &sequence(&[])));
    let key = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(key) => Some(key.0),
        _ => None,
    });
    if let Some(key) = key {
        list.push(extension(AUTHORITY_KEY, false, &sequence(&[tlv(0x80, key)])));
    }
    let mut names: Vec<Vec<u8>> = Vec::new();
    names.extend(request.emails.iter().map(|email| tlv(0x81, email.as_bytes())));
    names.extend(request.names.iter().map(|name| tlv(0x82, name.as_bytes())));
    names.extend(request.uris.iter().map(|uri| tlv(0x86, uri.as_bytes())));
    names.extend(request.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => tlv(0x87, &address.octets()),
        IpAddr::V6(address) => tlv(0x87, &address.octets()),
    }));
    if !names.is_empty() {
        list.push(extension(ALTERNATIVE_NAMES, request.common_name.is_empty(), &sequence(&names)));
    }
    list
}

/// An extension of the arc `id-ce` (2.5.29).
fn extension(number: u8, critical: bool, value: &[u8]) -> Vec<u8> {
    let mut parts = vec![tlv(tag::OID, &[0x55, 0x1d, number])];
    if critical {
        parts.push(tlv(tag::BOOLEAN, &[0xff]));
    }
    parts.push(tlv(tag::BYTES, value));
    sequence(&parts)
}

/// Drawn at random; positive, and of one length.
fn serial_number() -> Result<[u8; 16], String> {
    let mut number = [0; 16];
    SystemRandom::new().fill(&mut number).map_err(|_| "there is no randomness to be had".to_owned())?;
    number[0] = number[0] & 0x7f | 0x40;
    Ok(number)
}

/// Two digits of the year until 2049, as RFC 5280 (4.1.2.5) demands.
fn time(at: Timestamp) -> Vec<u8> {
    let civil = at.to_zoned(TimeZone::UTC);
    let (tag, year) = match civil.year() {
        year @ 1950..2050 => (tag::UTC_TIME, format!("{:02}", year % 100)),
        year => (tag::GENERALIZED_TIME, format!("{year:04}")),
    };
    tlv(tag, format!("{year}{}", civil.strftime("%m%d%H%M%SZ")).as_bytes())
}

fn bits(unused: u8, bytes: &[u8]) -> Vec<u8> {
    tlv(tag::BITS, &[&[unused], bytes].concat())
}

fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(tag::SEQUENCE, &parts.concat())
}

/// Tag, length and value of DER (X.690).
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(value.len()) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let length = value.len().to_be_bytes();
            let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
            // No length has more than eight bytes.
            out.push(0x80 | u8::try_from(length.len()).unwrap_or(8));
            out.extend_from_slice(length);
        }
    }
    out.extend_from_slice(value);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_can_be() {
        assert_eq!(tlv(4, &[0; 0x7f])[..2], [4, 0x7f]);
        assert_eq!(tlv(4, &[0; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(tlv(4, &[0; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
    }

    #[test]
    fn years_are_written_as_their_century_demands() {
        let at = |text: &str| time(text.parse().unwrap());
        assert_eq!(at("2026-01-02T03:04:05Z"), tlv(tag::UTC_TIME, b"260102030405Z"));
        assert_eq!(at("2049-12-31T23:59:59Z"), tlv(tag::UTC_TIME, b"491231235959Z"));
        assert_eq!(at("2050-01-01T00:00:00Z"), tlv(tag::GENERALIZED_TIME, b"20500101000000Z"));
    }
}
