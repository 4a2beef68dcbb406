//! Quantities of resources (`100m`, `64Mi`), as far as `resourceFieldRef` needs them.

/// The value of a quantity in thousandths, or nothing if it is none.
fn thousandths(quantity: &str) -> Option<i128> {
    let digits = quantity.trim_start_matches(['+', '-']);
    let split = digits.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(digits.len());
    let (number, suffix) = digits.split_at(split);
    let (factor, divisor): (i128, i128) = match suffix {
        "" => (1000, 1),
        "n" => (1, 1_000_000),
        "u" => (1, 1000),
        "m" => (1, 1),
        "k" => (1_000_000, 1),
        "M" => (1_000_000_000, 1),
        "G" => (1_000_000_000_000, 1),
        "T" => (1_000_000_000_000_000, 1),
        "P" => (1_000_000_000_000_000_000, 1),
        "Ki" => (1000 << 10, 1),
        "Mi" => (1000 << 20, 1),
        "Gi" => (1000 << 30, 1),
        "Ti" => (1000 << 40, 1),
        "Pi" => (1000 << 50, 1),
        _ => {
            let exponent: u32 = suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|e| *e <= 15)?;
            (1000 * 10_i128.pow(exponent), 1)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let fraction = &fraction[..fraction.len().min(9)];
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("{whole}{fraction}").parse().ok().filter(|d| *d < 1 << 62)?;
    Some(digits.checked_mul(factor)? / scale / divisor)
}

/// `quantity` in units of `divisor`, rounded up, as `resourceFieldRef` has it.
pub(crate) fn in_units(quantity: &str, divisor: &str) -> Option<i128> {
    let divisor = if divisor.is_empty() || divisor == "0" { "1" } else { divisor };
    let (value, unit) = (thousandths(quantity)?, thousandths(divisor)?);
    (unit > 0).then(|| (value + unit - 1) / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_counted_in_units() {
        for (quantity, divisor, value) in [
            ("2", "1", Some(2)),
            ("100m", "", Some(1)),
            ("100m", "1m", Some(100)),
            ("1.5", "1m", Some(1500)),
            ("64Mi", "1", Some(64 << 20)),
            ("64Mi", "1Mi", Some(64)),
            ("1e3", "0", Some(1000)),
            ("1k", "1", Some(1000)),
            ("", "1", None),
            ("abc", "1", None),
            ("1e99999", "1", None),
            ("99999999999999999999999999999999999999999Pi", "1", None),
        ] {
            assert_eq!(in_units(quantity, divisor), value, "{quantity} in {divisor}");
        }
    }
}
