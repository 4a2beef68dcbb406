//! Amounts of resources.

use super::{Answer, no_overload};
use crate::error::Error;
use crate::quantity::Quantity;
use crate::value::Value;

/// An amount as upstream keeps it (`k8s.io/apimachinery/pkg/api/resource`): whether it counts as a whole number, and which
/// double it is near to, depend on how it was written and computed.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    quantity: Quantity,
    /// The amount is `digits` times ten to the `power`.
    digits: i128,
    power: i32,
    /// Whether `digits` is a number of 64 bits (`int64Amount`), and not one without bounds (`infDecAmount`), which is never
    /// taken for a whole number.
    is_small: bool,
}

/// The most digits of what is kept small: `maxInt64Factors`.
const MOST_DIGITS: usize = 18;

impl Amount {
    fn parse(text: &str) -> Option<Self> {
        let quantity = Quantity::parse(text).ok()?;
        let number = text.trim_start_matches(['+', '-']);
        let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
        let (number, suffix) = number.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole = match whole.trim_start_matches('0') {
            "" => "0",
            whole => whole,
        };
        let count = whole.len() + fraction.len();
        let (factor, power, fits) = match binary_power(suffix) {
            Some(power) => {
                let fits = fraction.is_empty() && count + power as usize * 3 / 10 < 15;
                (1_i128 << power, 0, fits)
            }
            None => (1, decimal_power(suffix)?, count <= MOST_DIGITS),
        };
        let power = power - i32::try_from(fraction.len()).ok()?;
        let sign = if text.starts_with('-') { -1 } else { 1 };
        let digits = [whole, fraction].concat().parse::<i128>().ok();
        let digits = digits.and_then(|digits| digits.checked_mul(sign * factor));
        Some(match digits {
            Some(digits) if fits && power >= -9 && i64::try_from(digits).is_ok() => {
                Amount { quantity, digits, power, is_small: true }
            }
            Some(digits)
                if power >= -9 && quantity.nanos() == scaled(digits, power + 9).unwrap_or_default() =>
            {
                Amount { quantity, digits, power, is_small: false }
            }
            // It was rounded or cut.
            _ => Amount { quantity, digits: quantity.nanos(), power: -9, is_small: false },
        })
    }

    fn from_units(units: i64) -> Self {
        Amount { quantity: Quantity::from_units(units), digits: units.into(), power: 0, is_small: true }
    }

    fn plus(&self, other: &Amount) -> Self {
        let quantity = self.quantity.plus(&other.quantity);
        let power = self.power.min(other.power);
        let aligned = |of: &Amount| scaled(of.digits, of.power - power);
        let digits = match (self.digits, other.digits) {
            (_, 0) if self.is_small && other.is_small => return Amount { quantity, ..*self },
            (0, _) if self.is_small && other.is_small => return Amount { quantity, ..*other },
            _ => aligned(self).zip(aligned(other)).and_then(|(a, b)| a.checked_add(b)),
        };
        let Some(digits) = digits else {
            return Amount { quantity, digits: quantity.nanos(), power: -9, is_small: false };
        };
        let is_small = self.is_small && other.is_small && i64::try_from(digits).is_ok();
        Amount { quantity, digits, power, is_small }
    }

    fn negated(&self) -> Self {
        Amount { quantity: self.quantity.negated(), digits: -self.digits, ..*self }
    }

    /// The whole number that it is, if upstream takes it for one.
    fn whole(&self) -> Option<i64> {
        let digits = scaled(self.digits, u32::try_from(self.power).ok()? as i32)?;
        i64::try_from(digits).ok().filter(|_| self.is_small)
    }

    /// The double that is near to it.
    fn double(&self) -> f64 {
        // Go takes the power from a table: each is the double that is nearest to it.
        self.digits as f64 * format!("1e{}", self.power).parse::<f64>().unwrap_or(f64::INFINITY)
    }
}

impl std::fmt::Display for Amount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.quantity.fmt(f)
    }
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.quantity == other.quantity
    }
}

/// `digits` times ten to the `power`, where that is no fraction.
fn scaled(digits: i128, power: i32) -> Option<i128> {
    digits.checked_mul(10_i128.checked_pow(u32::try_from(power).ok()?)?)
}

fn binary_power(suffix: &str) -> Option<u32> {
    let at = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].iter().position(|known| *known == suffix)?;
    Some(10 * (at as u32 + 1))
}

fn decimal_power(suffix: &str) -> Option<i32> {
    let known = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"].iter().position(|known| *known == suffix);
    match known {
        Some(at) => Some((at as i32 - 3) * 3),
        None => suffix.strip_prefix(['e', 'E'])?.parse().ok(),
    }
}

/// `quantity` and `isQuantity`.
pub(super) fn parse<'a>(function: &str, text: &str) -> Answer<'a> {
    match (function, Amount::parse(text)) {
        ("isQuantity", parsed) => Ok(Value::Bool(parsed.is_some())),
        (_, Some(amount)) => Ok(Value::Quantity(amount)),
        (_, None) => match Quantity::parse(text) {
            Err(error) => Error::failed(error.to_string()),
            Ok(_) => Error::failed(format!("{text:?} is no quantity")),
        },
    }
}

/// `sign`.
pub(super) fn sign<'a>(of: &Amount) -> Answer<'a> {
    Ok(Value::Int(of.quantity.cmp(&Quantity::default()) as i64))
}

pub(super) fn method<'a>(name: &str, of: &Amount, arguments: &[Value<'a>]) -> Answer<'a> {
    Ok(match (name, arguments) {
        ("isInteger", []) => Value::Bool(of.whole().is_some()),
        ("asInteger", []) => match of.whole() {
            Some(n) => Value::Int(n),
            None => return Error::failed("cannot convert value to integer"),
        },
        ("asApproximateFloat", []) => Value::Double(of.double()),
        ("add", [Value::Quantity(other)]) => Value::Quantity(of.plus(other)),
        ("add", [Value::Int(n)]) => Value::Quantity(of.plus(&Amount::from_units(*n))),
        ("sub", [Value::Quantity(other)]) => Value::Quantity(of.plus(&other.negated())),
        ("sub", [Value::Int(n)]) => Value::Quantity(of.plus(&Amount::from_units(*n).negated())),
        ("isLessThan", [Value::Quantity(other)]) => Value::Bool(of.quantity < other.quantity),
        ("isGreaterThan", [Value::Quantity(other)]) => Value::Bool(of.quantity > other.quantity),
        ("compareTo", [Value::Quantity(other)]) => Value::Int(of.quantity.cmp(&other.quantity) as i64),
        _ => return no_overload(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_whole_is_a_matter_of_its_form() {
        for (text, whole, double) in [
            ("1Gi", Some(1 << 30), 1_073_741_824.0),
            ("1e3", Some(1000), 1000.0),
            ("-1", Some(-1), -1.0),
            ("0", Some(0), 0.0),
            ("500m", None, 0.5),
            ("1000m", None, 1.0),
            ("1.0", None, 1.0),
            ("0.5Gi", None, 536_870_912.0),
            ("9999999999Ti", None, 9.223_372_036_854_776e18),
            ("1000000000000000000", None, 1e18),
            ("100000000000000000", Some(100_000_000_000_000_000), 1e17),
            ("0.3", None, 0.30000000000000004),
        ] {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.whole(), amount.double()), (whole, double), "{text}");
        }
        let half = Amount::parse("500m").unwrap();
        assert_eq!(half.plus(&half).whole(), None);
        let gone = half.plus(&half.negated()).plus(&Amount::from_units(7));
        assert_eq!((gone.whole(), gone.to_string().as_str()), (Some(7), "7"));
    }
}
