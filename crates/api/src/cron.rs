//! Schedules of cron jobs: five fields, or a name such as `@daily`, as `github.com/robfig/cron` reads them.

/// A field's name, its smallest and largest value, and names for values from the smallest on.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
    ("day of week", 0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
];

const NAMED: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// The names of the time zones of the IANA's database, one a line.
const TIME_ZONES: &str = include_str!("../schemas/time-zones.txt");

/// Says why a schedule is none.
pub(crate) fn validate(schedule: &str) -> Result<(), String> {
    if let Some(every) = schedule.strip_prefix("@every ") {
        return if is_duration(every) { Ok(()) } else { Err(format!("no duration: {every:?}")) };
    }
    if schedule.starts_with('@') {
        return if NAMED.contains(&schedule) { Ok(()) } else { Err(format!("unknown name: {schedule:?}")) };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(format!("expected exactly {} fields, found {}", FIELDS.len(), fields.len()));
    }
    for (text, field) in fields.iter().zip(&FIELDS) {
        text.split(',').try_for_each(|range| validate_range(range, *field))?;
    }
    Ok(())
}

/// `*`, `?`, `5`, `1-5`, `*/15`, `1-30/2`, `mon-fri`
fn validate_range(text: &str, (what, least, most, names): (&str, u32, u32, &[&str])) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{what}: {why}: {text:?}"));
    let (range, step) = match text.split_once('/') {
        Some((range, step)) => (range, Some(step)),
        None => (text, None),
    };
    if let Some(step) = step
        && !step.parse::<u32>().is_ok_and(|step| step > 0)
    {
        return wrong("the step must be a positive number");
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let value = |text: &str| {
        let name = names.iter().position(|name| name.eq_ignore_ascii_case(text));
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        match name {
            Some(at) => u32::try_from(at).ok().map(|at| at + least),
            None => text.parse().ok().filter(|_| digits),
        }
    };
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    let (Some(first), Some(last)) = (value(first), value(last)) else { return wrong("not a number") };
    // A single number with a step runs to the end.
    let last = if step.is_some() && !range.contains('-') { most } else { last };
    if first < least || last > most {
        return wrong(&format!("must lie between {least} and {most}"));
    }
    if first > last {
        return wrong("begins beyond its end");
    }
    Ok(())
}

/// A duration in Go's form: `1h30m`, `1.5s`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest.is_empty() {
        return false;
    }
    if rest == "0" {
        return true;
    }
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(number);
        if digits.matches('.').count() > 1 || !digits.bytes().any(|byte| byte.is_ascii_digit()) {
            return false;
        }
        let unit = ["ns", "us", "µs", "ms", "s", "m", "h"].iter().filter(|unit| tail.starts_with(**unit));
        let Some(unit) = unit.max_by_key(|unit| unit.len()) else { return false };
        rest = &tail[unit.len()..];
    }
    true
}

/// Whether there is a time zone of that name.
pub(crate) fn is_time_zone(name: &str) -> bool {
    TIME_ZONES.lines().any(|line| line == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_what_is_none() {
        for good in
            ["*/5 * * * *", "0 0 1 JAN mon-fri", "5/15 1-3 ? * 0,6", "@daily", "@every 1h30m", "1,2 * * * *"]
        {
            assert_eq!(validate(good), Ok(()), "{good}");
        }
        for bad in [
            "every day",
            "* * * *",
            "60 * * * *",
            "* * 0 * *",
            "5-1 * * * *",
            "*/0 * * * *",
            "@often",
            "@every x",
            "-1 * * * *",
            "+1 * * * *",
        ] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_zones_are_known_by_name() {
        assert!(is_time_zone("Europe/Zurich") && is_time_zone("Etc/UTC") && !is_time_zone("Mars/Olympus"));
    }
}
