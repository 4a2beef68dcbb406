//! `IntOrString` where it is a number or a share: `2`, `25%`.

use serde_json::Value;

/// A number of things, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// How many.
    pub number: i64,
    /// Whether these are percent.
    pub percent: bool,
}

/// The share in `value`, 0 where there is none; nothing if it is negative or no share at all.
pub fn share(value: &Value) -> Option<Share> {
    match value {
        Value::Null => Some(Share { number: 0, percent: false }),
        Value::Number(number) => Some(Share { number: number.as_i64().filter(|n| *n >= 0)?, percent: false }),
        Value::String(text) => {
            let digits = text.strip_suffix('%').filter(|d| d.bytes().all(|b| b.is_ascii_digit()))?;
            Some(Share { number: digits.parse().ok()?, percent: true })
        }
        _ => None,
    }
}
