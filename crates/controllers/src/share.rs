//! `IntOrString` where it is a number of pods or a share of them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// A number of pods, or a share of all of them.
pub(crate) fn resolve(value: Option<&IntOrString>, replicas: i32, up: bool) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text
            .strip_suffix('%')
            .and_then(|number| number.parse::<i64>().ok())
            .unwrap_or(0)
            .clamp(0, 1_000_000),
        None => 25,
    };
    let product = i64::from(replicas) * percent;
    let share = if up { (product + 99) / 100 } else { product / 100 };
    i32::try_from(share).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_in_kubernetes() {
        let text = |t: &str| IntOrString::String(t.into());
        for (value, replicas, surge, missing) in [
            (text("25%"), 3, 1, 0),
            (text("25%"), 4, 1, 1),
            (text("100%"), 5, 5, 5),
            (IntOrString::Int(2), 10, 2, 2),
            (text("nonsense"), 10, 0, 0),
        ] {
            assert_eq!(resolve(Some(&value), replicas, true), surge, "{value:?} up");
            assert_eq!(resolve(Some(&value), replicas, false), missing, "{value:?} down");
        }
    }
}
