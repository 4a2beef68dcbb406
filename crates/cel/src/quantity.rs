//! `Quantity`: amounts of a resource, such as `100m`, `1.5`, `1Gi` or `12e6`.
//!
//! Follows `k8s.io/apimachinery/pkg/api/resource`: canonical form, and rounding up to the smallest unit.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// An amount of a resource, exact to a billionth.
///
/// Two quantities are equal when they are the same amount, however written.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

/// How the amount was written, and is written again.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
enum Form {
    #[default]
    Decimal,
    Binary,
    Exponent,
}

/// Text that is no quantity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no quantity: give a number with one of the suffixes n, u, m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei, or with an exponent"
)]
pub struct QuantityError(String);

const NANO: i128 = 1_000_000_000;
/// Larger amounts are cut to this one: 2^63 - 1, as upstream does.
const LARGEST: i128 = i64::MAX as i128 * NANO;
const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
/// Suffixes of powers of ten, from the smallest: 10^-9, in steps of three.
const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

impl Quantity {
    /// The amount in `text`.
    ///
    /// # Errors
    /// If it is no quantity.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let error = || QuantityError(text.chars().take(64).collect());
        let (negative, rest) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, suffix) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || number.len() > 64 {
            return Err(error());
        }
        let (form, power, factor) = suffix_of(suffix).ok_or_else(error)?;
        let nanos = scaled(whole, fraction, power, factor);
        let nanos = nanos.unwrap_or(LARGEST).min(LARGEST);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, form })
    }

    /// A whole amount.
    pub fn from_units(units: i64) -> Self {
        Quantity { nanos: i128::from(units) * NANO, form: Form::Decimal }
    }

    /// An amount in thousandths.
    pub fn from_milli(milli: i64) -> Self {
        Quantity { nanos: i128::from(milli) * (NANO / 1000), form: Form::Decimal }
    }

    /// The amount in whole units, rounded up (away from zero).
    pub fn units(&self) -> i128 {
        round_up(self.nanos, NANO)
    }

    /// The amount in thousandths, rounded up (away from zero).
    pub fn milli(&self) -> i128 {
        round_up(self.nanos, NANO / 1000)
    }

    /// The amount in billionths.
    pub(crate) fn nanos(&self) -> i128 {
        self.nanos
    }

    /// This amount and another, written as this one is; past the largest, the largest.
    pub(crate) fn plus(&self, other: &Quantity) -> Self {
        Quantity { nanos: (self.nanos + other.nanos).clamp(-LARGEST, LARGEST), form: self.form }
    }

    /// The same amount below zero, or above.
    pub(crate) fn negated(&self) -> Self {
        Quantity { nanos: -self.nanos, form: self.form }
    }

    /// Whether the amount is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether the amount is whole.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The sum, written as the first one unless that is nothing.
    fn add(self, other: Quantity) -> Quantity {
        let form = if self.nanos == 0 { other.form } else { self.form };
        Quantity { nanos: self.nanos.saturating_add(other.nanos), form }
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    /// The difference, written as the first one unless that is nothing.
    fn sub(self, other: Quantity) -> Quantity {
        self + Quantity { nanos: -other.nanos, form: other.form }
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Quantity::parse(text)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        // Upstream writes binary forms of small or broken amounts in decimal.
        if self.form == Form::Binary && self.is_whole() && self.nanos.abs() >= 1024 * NANO {
            let (mut amount, mut suffix) = (self.nanos / NANO, "");
            for next in BINARY {
                if amount % 1024 != 0 {
                    break;
                }
                (amount, suffix) = (amount / 1024, next);
            }
            return write!(f, "{amount}{suffix}");
        }
        let (mut amount, mut step) = (self.nanos, 0);
        while step + 1 < DECIMAL.len() && amount % 1000 == 0 {
            (amount, step) = (amount / 1000, step + 1);
        }
        match (self.form, step) {
            (Form::Exponent, 3) => write!(f, "{amount}"),
            (Form::Exponent, _) => write!(f, "{amount}e{}", (step as i32 - 3) * 3),
            _ => write!(f, "{amount}{}", DECIMAL[step]),
        }
    }
}

/// Form, power of ten and factor of a suffix.
fn suffix_of(suffix: &str) -> Option<(Form, i32, i128)> {
    if let Some(at) = BINARY.iter().position(|known| *known == suffix) {
        return Some((Form::Binary, 0, 1 << (10 * (at + 1))));
    }
    if let Some(at) = DECIMAL.iter().position(|known| *known == suffix) {
        return Some((Form::Decimal, (at as i32 - 3) * 3, 1));
    }
    let exponent = suffix.strip_prefix(['e', 'E'])?;
    let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((Form::Exponent, exponent.parse().ok()?, 1))
}

/// `whole.fraction * 10^power * factor` in billionths, rounded up; nothing if it is too large.
fn scaled(whole: &str, fraction: &str, power: i32, factor: i128) -> Option<i128> {
    let digits: String = [whole, fraction].concat();
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Some(0);
    }
    let shift = power + 9 - i32::try_from(fraction.len()).ok()?;
    if shift < -60 {
        return Some(1);
    }
    // Digits past the 38th can't be held; what is smaller than a billionth is rounded up anyway.
    let kept = digits.len().min(28);
    let rest_is_zero = digits[kept..].bytes().all(|b| b == b'0');
    let amount: i128 = digits[..kept].parse().ok()?;
    let shift = shift + i32::try_from(digits.len() - kept).ok()?;
    let amount = amount.checked_mul(factor)?;
    if shift >= 0 {
        return amount.checked_mul(10i128.checked_pow(shift as u32)?);
    }
    let Some(divisor) = 10i128.checked_pow(shift.unsigned_abs()) else { return Some(1) };
    Some(amount / divisor + i128::from(amount % divisor != 0 || !rest_is_zero))
}

fn round_up(nanos: i128, unit: i128) -> i128 {
    let whole = nanos / unit;
    if nanos % unit == 0 { whole } else { whole + nanos.signum() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_written_in_canonical_form() {
        for (text, canonical, milli) in [
            ("0", "0", 0),
            ("1", "1", 1000),
            ("0.5", "500m", 500),
            (".5", "500m", 500),
            ("5.", "5", 5000),
            ("1000m", "1", 1000),
            ("1500m", "1500m", 1500),
            ("1024Mi", "1Gi", 1024 * 1024 * 1024 * 1000),
            ("1536Mi", "1536Mi", 1536 * 1024 * 1024 * 1000),
            ("0.5Gi", "512Mi", 512 * 1024 * 1024 * 1000),
            ("1.5Ki", "1536", 1_536_000),
            ("12e6", "12e6", 12_000_000_000),
            ("1e3", "1e3", 1_000_000),
            ("100E", "9223372036854775807", i64::MAX as i128 * 1000),
            ("-2", "-2", -2000),
            ("1000k", "1M", 1_000_000_000),
            ("1n", "1n", 1),
            ("0.0000000001", "1n", 1),
        ] {
            let quantity = Quantity::parse(text).unwrap();
            assert_eq!((quantity.to_string().as_str(), quantity.milli()), (canonical, milli), "{text}");
        }
        for text in ["", "lots", "1.2.3", "1 Gi", "1gi", "-", "e3", "1e", "1e+", "1Kii", "٣"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(digits in "[0-9]{1,9}(\\.[0-9]{0,3})?", suffix in "(m|k|M|G|Ki|Mi|Gi|e3|)") {
            let quantity = Quantity::parse(&format!("{digits}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn any_text_is_a_quantity_or_an_error(text in "\\PC{0,80}") {
            let _ = Quantity::parse(&text);
        }
    }
}
