//! Times and lengths of time.

/// A whole date, such as `2026-01-31`.
pub(super) fn is_date(text: &str) -> bool {
    text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok()
}

/// A date, `T`, a time with seconds, and a zone (go-openapi's `IsDateTime`, which takes any character before a fraction).
pub(super) fn is_date_time(text: &str) -> bool {
    let Some((date, time)) = text.split_once(['T', 't']) else { return false };
    let number = |text: &str, most: u32| {
        text.len() == 2 && text.parse().is_ok_and(|n: u32| n <= most && !text.starts_with('+'))
    };
    let (Some(hour), Some(minute), Some(second)) = (time.get(..2), time.get(3..5), time.get(6..8)) else {
        return false;
    };
    let colons = [2, 5].iter().all(|at| time.as_bytes()[*at] == b':');
    let zone = &time[8..];
    let fraction = zone.char_indices().nth(1).map_or(0, |(first, _)| {
        let digits = zone[first..].bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || zone.starts_with(['Z', 'z', '+', '-']) { 0 } else { first + digits }
    });
    let zone = &zone[fraction..];
    let is_offset = |zone: &str| {
        let parts = zone.strip_prefix(['+', '-']).and_then(|offset| offset.split_once(':'));
        parts.is_some_and(|(hours, minutes)| number(hours, 99) && number(minutes, 99))
    };
    is_date(date)
        && colons
        && number(hour, 23)
        && number(minute, 59)
        && number(second, 59)
        && (zone.eq_ignore_ascii_case("z") || is_offset(zone))
}

/// Go's durations, such as `1h30m` or `-1.5s`, and texts in which numbers with words stand, such as `2 days` or `7d12h`.
pub(super) fn is_duration(text: &str) -> bool {
    is_go_duration(text) || is_worded(text)
}

fn is_go_duration(text: &str) -> bool {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest.is_empty() || rest == "0" {
        return rest == "0";
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, behind) = rest.split_at(digits);
        let unit = behind.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(behind.len());
        if number.parse::<f64>().is_err() || !UNITS.contains(&&behind[..unit]) {
            return false;
        }
        rest = &behind[unit..];
    }
    true
}

/// Whether a number with a known word stands anywhere in a text, as upstream looks for it: what else stands there doesn't count,
/// but each number before a word must be one of 64 bits.
fn is_worded(text: &str) -> bool {
    const WORDS: [&str; 11] = ["ns", "us", "µs", "ms", "s", "m", "h", "hr", "d", "w", "wk"];
    /// Words that begin so count too: `seconds`.
    const STARTS: [&str; 8] = ["nano", "micro", "milli", "sec", "min", "hour", "day", "week"];
    let mut is_found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = &rest[start..];
        let behind = digits.trim_start_matches(|c: char| c.is_ascii_digit());
        let number = &digits[..digits.len() - behind.len()];
        let word = behind.trim_start_matches([' ', '\t', '\n', '\u{c}', '\r']);
        let end = word.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(word.len());
        let unit = word[..end].to_lowercase();
        if !unit.is_empty() {
            if number.parse::<i64>().is_err() {
                return false;
            }
            is_found |= WORDS.contains(&unit.as_str()) || STARTS.iter().any(|start| unit.starts_with(start));
        }
        rest = &word[end..];
    }
    is_found
}
