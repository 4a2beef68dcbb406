//! `format` of texts, as far as upstream checks it (`k8s.io/kube-openapi/pkg/validation/strfmt`).

mod addresses;
mod numbers;
mod times;
mod uri;

use std::net::Ipv6Addr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::name::{label_fault, subdomain_fault};

/// Whether upstream checks a format of values of that type, `""` being any (`supportedVersionedFormats`).
pub fn is_known(kind: &str, format: &str) -> bool {
    const OF_TEXTS: [&str; 26] = [
        "bsonobjectid",
        "uri",
        "email",
        "hostname",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "uuid",
        "uuid3",
        "uuid4",
        "uuid5",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "byte",
        "password",
        "date",
        "duration",
        "datetime",
        "k8sshortname",
        "k8slongname",
    ];
    match kind {
        "" | "string" => OF_TEXTS.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Whether a text has a format; any text has one that isn't known. Dashes in a format's name don't count.
pub(super) fn fits(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => times::is_date_time(text),
        "date" => times::is_date(text),
        "duration" => times::is_duration(text),
        // Upstream's pattern wants at least one group of four.
        "byte" => !text.is_empty() && STANDARD.decode(text).is_ok(),
        "ipv4" => addresses::is_ipv4(text),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => addresses::is_cidr(text),
        "mac" => addresses::is_mac(text),
        "hostname" => addresses::is_hostname(text),
        "email" => addresses::is_email(text),
        "uri" => uri::is_request_uri(text),
        "uuid" => numbers::is_uuid(text, None),
        "uuid3" => numbers::is_uuid(text, Some(b'3')),
        "uuid4" => numbers::is_uuid(text, Some(b'4')),
        "uuid5" => numbers::is_uuid(text, Some(b'5')),
        "isbn" => numbers::is_isbn10(text) || numbers::is_isbn13(text),
        "isbn10" => numbers::is_isbn10(text),
        "isbn13" => numbers::is_isbn13(text),
        "creditcard" => numbers::is_credit_card(text),
        "ssn" => numbers::is_ssn(text),
        "hexcolor" => numbers::is_hex_color(text),
        "rgbcolor" => numbers::is_rgb_color(text),
        "k8sshortname" => label_fault(text).is_none(),
        "k8slongname" => subdomain_fault(text).is_none(),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn formats_are_told_apart() {
        for (format, yes, no) in [
            ("date-time", "2026-01-31T12:00:00Z", "2026-01-31"),
            ("date-time", "2026-01-31t12:00:00.25z", "2026-01-31 12:00:00Z"),
            ("date-time", "2026-01-31T12:00:00+01:00", "2026-01-31T12:00Z"),
            ("date-time", "2026-01-31T12:00:00.123456-09:30", "2026-01-31T24:00:00Z"),
            ("date-time", "2026-01-31T12:00:00,5Z", "2026-01-31T12:00:00"),
            ("k8s-short-name", "a-1", "a.b"),
            ("k8s-long-name", "a-1.b", "A"),
            ("date", "2026-01-31", "2026-02-31"),
            ("duration", "1h30m", "soon"),
            ("duration", "2 days", "1x"),
            ("duration", "7d12h", "1month"),
            ("duration", "1.5 weeks and 3 Days", ""),
            ("byte", "aGk=", "a"),
            ("byte", "aGkA", ""),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv4", "010.000.0.01", "10.0.0.256"),
            ("ipv4", "::ffff:1.2.3.4", "::1"),
            ("cidr", "010.0.0.0/8", "10.0.0.0/33"),
            ("mac", "0123.4567.89ab", "01:23-45:67:89:ab"),
            ("mac", "01-23-45-67-89-ab-cd-ef", "0123.4567"),
            ("uuid", "7f0c2b1e-000040008000-000000000000", "7f0c2b1e-0000-4000-80000-00000000000"),
            ("uuid4", "7F0C2B1E-0000-4000-B000-000000000000", "7f0c2b1e-0000-4000-c000-000000000000"),
            ("hostname", "a-b", "my-host"),
            ("hostname", "my-host.example", "my-host.example.c"),
            ("hostname", "1.example", "a.b.1"),
            ("hostname", "aöb.example.com", "example.com."),
            ("email", "A b <a.b@my_host>", "a.@b"),
            ("email", "\"a b\"@[10.0.0.1]", "a b@c"),
            ("uri", "/a b", "a/b"),
            ("uri", "*", ""),
            ("uri", "mailto:", ":a"),
            ("uri", "http://u:p@[::1]:80/?q", "http://[::1/"),
            ("uri", "http://a:/", "http://a:b/"),
            ("uri", "http://a.b/%20", "http://a.b/%2"),
            ("uri", "http://a.b?x y", "http://a b/"),
            ("isbn", "978-0321751041", "978-0321751042"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn10", "0-8044-2957-X", "978-0321751041"),
            ("isbn13", "9780321751041", "0321751043"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-11-1111", "111111111"),
            ("hexcolor", "#fff", "#ffff"),
            ("rgbcolor", "rgb( 0,99, 255 )", "rgb(0,0,256)"),
            ("rgbcolor", "rgb(0,0,0)", "rgb(00,0,0)"),
            ("ipv6", "::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "7f0c2b1e-0000-4000-8000-000000000000", "7f0c"),
            ("uuid4", "7f0c2b1e-0000-4000-8000-000000000000", "7f0c2b1e-0000-5000-8000-000000000000"),
            ("hostname", "a.example.com", "-a.b"),
            ("email", "a@example.com", "a"),
            ("uri", "https://example.com/a", "example"),
        ] {
            assert!(fits(format, yes), "{format} {yes}");
            assert!(!fits(format, no), "{format} {no}");
        }
        assert!(fits("whatever", "x"));
    }
}
