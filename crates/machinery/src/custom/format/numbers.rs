//! Numbers that people are known by, and colours.

/// Hexadecimal digits in groups of 8, 4, 4, 4 and 12, with a dash or none between two groups; of the versions 4 and 5 also of
/// the variant that RFC 9562 describes.
pub(super) fn is_uuid(text: &str, version: Option<u8>) -> bool {
    let mut rest = text;
    let mut digits = String::with_capacity(32);
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        rest = if index > 0 { rest.strip_prefix('-').unwrap_or(rest) } else { rest };
        let Some((group, behind)) = rest.split_at_checked(length) else { return false };
        digits.push_str(group);
        rest = behind;
    }
    let digits = digits.as_bytes();
    let has_variant = || matches!(digits[16], b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
    rest.is_empty()
        && digits.iter().all(u8::is_ascii_hexdigit)
        && version.is_none_or(|version| digits[12] == version && (version == b'3' || has_variant()))
}

/// The digits of a book's number, without blanks and dashes.
fn book_digits(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !matches!(b, b' ' | b'\t' | b'\n' | 0x0c | b'\r' | b'-')).collect()
}

/// A book's number of ten digits, the last of which sums up the others, `X` being ten.
pub(super) fn is_isbn10(text: &str) -> bool {
    let digits = book_digits(text);
    let Some((last, first)) = digits.split_last().filter(|(_, first)| first.len() == 9) else { return false };
    let last = if *last == b'X' { 10 } else { u32::from(last.wrapping_sub(b'0')) };
    let sum: u32 = (1..).zip(first).map(|(nth, digit)| nth * u32::from(digit.wrapping_sub(b'0'))).sum();
    first.iter().all(u8::is_ascii_digit) && last <= 10 && (sum + 10 * last).is_multiple_of(11)
}

/// A book's number of thirteen digits.
pub(super) fn is_isbn13(text: &str) -> bool {
    let digits = book_digits(text);
    let sum: u32 =
        [1, 3].iter().cycle().zip(&digits).map(|(by, d)| by * u32::from(d.wrapping_sub(b'0'))).sum();
    digits.len() == 13 && digits.iter().all(u8::is_ascii_digit) && sum.is_multiple_of(10)
}

/// The number of a known company's card, whatever stands between its digits, with the right last digit (Luhn).
pub(super) fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let starts = |prefixes: std::ops::RangeInclusive<u32>, length: usize| {
        let width = prefixes.start().to_string().len();
        digits.len() == length
            && digits.get(..width).and_then(|start| start.parse().ok()).is_some_and(|n| prefixes.contains(&n))
    };
    let is_known = starts(4..=4, 13)
        || starts(4..=4, 16)
        || starts(51..=55, 16)
        || starts(6011..=6011, 16)
        || starts(65..=65, 16)
        || starts(34..=34, 15)
        || starts(37..=37, 15)
        || starts(300..=305, 14)
        || starts(36..=36, 14)
        || starts(38..=38, 14)
        || starts(2131..=2131, 15)
        || starts(1800..=1800, 15)
        || starts(35..=35, 16);
    let digit = |(index, digit): (usize, u8)| {
        let value = u32::from(digit - b'0') * if index % 2 == 1 { 2 } else { 1 };
        value / 10 + value % 10
    };
    is_known && digits.bytes().rev().enumerate().map(digit).sum::<u32>().is_multiple_of(10)
}

/// A social security number of the United States, with both separators.
pub(super) fn is_ssn(text: &str) -> bool {
    text.len() == 11
        && text.bytes().enumerate().all(|(index, byte)| match index {
            3 | 6 => matches!(byte, b'-' | b' '),
            _ => byte.is_ascii_digit(),
        })
}

/// Three or six hexadecimal digits.
pub(super) fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `rgb(0, 99, 255)`.
pub(super) fn is_rgb_color(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|text| text.strip_suffix(')'));
    let parts: Vec<&str> = inner.into_iter().flat_map(|inner| inner.split(',')).collect();
    let is_part = |part: &&str| {
        let part = part.trim_matches([' ', '\t', '\n', '\u{c}', '\r']);
        part.bytes().all(|b| b.is_ascii_digit())
            && part.parse::<u8>().is_ok()
            && (part == "0" || !part.starts_with('0'))
    };
    parts.len() == 3 && parts.iter().all(is_part)
}
