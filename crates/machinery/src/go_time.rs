//! RFC 3339 as Go reads it (`time.Parse`), and what Go says of what it can't read: upstream's answers have those words.

use std::fmt::Write;

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime};
use values::{LONGEST_PATH, cut};

/// The digits behind the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fraction {
    /// As many as somebody wrote, or none.
    Any,
    /// Six.
    Six,
}

impl Fraction {
    fn layout(self) -> &'static str {
        match self {
            Fraction::Any => "2006-01-02T15:04:05Z07:00",
            Fraction::Six => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// A time, in UTC. It lies within the years that RFC 3339 can say, 0 to 9999: Go would write others, and not read them again.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub(crate) fn parse(text: &str, fraction: Fraction) -> Result<DateTime, String> {
    let mut reading = Reading { text, rest: text, layout: fraction.layout() };
    let year = reading.year()?;
    reading.sign("-")?;
    let month = reading.number("01", true, 1..=12, "month")?;
    reading.sign("-")?;
    // The days of a month are counted at the end.
    let day = reading.number("02", true, 0..=99, "day")?;
    reading.sign("T")?;
    let hour = reading.number("15", false, 0..=23, "hour")?;
    reading.sign(":")?;
    let minute = reading.number("04", true, 0..=59, "minute")?;
    reading.sign(":")?;
    let second = reading.number("05", true, 0..=59, "second")?;
    let nanoseconds = match fraction {
        Fraction::Any => reading.fraction(),
        Fraction::Six => reading.six_digits()?,
    };
    let offset = reading.zone()?;
    if !reading.rest.is_empty() {
        return Err(reading.says(&format!("extra text: {}", quoted(reading.rest))));
    }
    let of_day = || reading.says("day out of range");
    let date = Date::new(year, month as i8, day as i8).map_err(|_| of_day())?;
    let time = date.at(hour as i8, minute as i8, second as i8, nanoseconds);
    let time = time.checked_sub(SignedDuration::from_secs(offset)).ok().filter(|time| time.year() >= 0);
    time.ok_or_else(|| reading.says("year out of range"))
}

struct Reading<'a> {
    text: &'a str,
    rest: &'a str,
    layout: &'static str,
}

impl Reading<'_> {
    fn says(&self, why: &str) -> String {
        format!("parsing time {}: {why}", quoted(self.text))
    }

    /// What stands there is no such part of the layout.
    fn unlike(&self, part: &str) -> String {
        format!(
            "parsing time {} as {}: cannot parse {} as {}",
            quoted(self.text),
            quoted(self.layout),
            quoted(self.rest),
            quoted(part)
        )
    }

    fn digits(&self) -> usize {
        self.rest.bytes().take_while(u8::is_ascii_digit).count()
    }

    fn take(&mut self, count: usize) -> &str {
        let (taken, rest) = self.rest.split_at(count);
        self.rest = rest;
        taken
    }

    fn sign(&mut self, sign: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(sign).ok_or_else(|| self.unlike(sign))?;
        Ok(())
    }

    fn year(&mut self) -> Result<i16, String> {
        if self.digits() < 4 {
            return Err(self.unlike("2006"));
        }
        Ok(self.take(4).parse().unwrap_or_default())
    }

    /// A number of two digits, or of one where that may be.
    fn number(
        &mut self,
        part: &str,
        fixed: bool,
        range: std::ops::RangeInclusive<u8>,
        name: &str,
    ) -> Result<u8, String> {
        let count = self.digits().min(2);
        if count == 0 || fixed && count == 1 {
            return Err(self.unlike(part));
        }
        let number = self.take(count).parse().unwrap_or_default();
        if !range.contains(&number) {
            return Err(self.says(&format!("{name} out of range")));
        }
        Ok(number)
    }

    /// What may stand behind the second though the layout has nothing there: a dot or comma and digits.
    fn fraction(&mut self) -> i32 {
        let behind = self.rest.strip_prefix(['.', ',']).unwrap_or_default();
        let digits = behind.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return 0;
        }
        nanoseconds(&self.take(1 + digits)[1..])
    }

    fn six_digits(&mut self) -> Result<i32, String> {
        let behind = self.rest.strip_prefix(['.', ',']).unwrap_or_default();
        if behind.bytes().take_while(u8::is_ascii_digit).count() < 6 {
            return Err(self.unlike(".000000"));
        }
        Ok(nanoseconds(&self.take(7)[1..]))
    }

    /// The distance from UTC in seconds.
    fn zone(&mut self) -> Result<i64, String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bytes = self.rest.as_bytes();
        let number = |from: usize| -> Option<i64> {
            let digits = bytes.get(from..from + 2).filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
            Some(i64::from(digits[0] - b'0') * 10 + i64::from(digits[1] - b'0'))
        };
        let sign = match bytes.first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(self.unlike("Z07:00")),
        };
        let (Some(hours), Some(b':'), Some(minutes)) = (number(1), bytes.get(3), number(4)) else {
            return Err(self.unlike("Z07:00"));
        };
        for (number, most, name) in [(hours, 24, "hour"), (minutes, 60, "minute")] {
            if number > most {
                return Err(self.says(&format!("time zone offset {name} out of range")));
            }
        }
        self.take(6);
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

/// Digits behind a dot; what is less than a nanosecond is left out.
fn nanoseconds(digits: &str) -> i32 {
    let nine: String = digits.chars().chain(std::iter::repeat('0')).take(9).collect();
    nine.parse().unwrap_or_default()
}

/// A text as Go's `time` quotes it.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for byte in cut(text, LONGEST_PATH).bytes() {
        // Writing to a text can't fail.
        let _ = match byte {
            b'"' | b'\\' => write!(out, "\\{}", char::from(byte)),
            0..0x20 | 0x80.. => write!(out, "\\x{byte:02x}"),
            byte => write!(out, "{}", char::from(byte)),
        };
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for (text, time) in [
            ("2024-01-01T00:00:00Z", "2024-01-01T00:00:00"),
            ("2024-01-01T1:00:00Z", "2024-01-01T01:00:00"),
            ("2024-02-29T23:59:59,25+01:30", "2024-02-29T22:29:59.25"),
            ("2024-01-01T00:00:00.1234567891Z", "2024-01-01T00:00:00.123456789"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00"),
            ("0000-01-01T00:00:00Z", "0000-01-01T00:00:00"),
            ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999"),
            ("9999-12-31T23:59:59-00:00", "9999-12-31T23:59:59"),
            ("9999-12-31T23:59:59+24:60", "9999-12-30T22:59:59"),
        ] {
            assert_eq!(
                parse(text, Fraction::Any).map(|time| time.to_string()).as_deref(),
                Ok(time),
                "{text}"
            );
        }
        assert!(parse("2024-01-01T00:00:00.123456-00:00", Fraction::Six).is_ok());
    }

    #[test]
    fn what_is_no_time_is_told_in_gos_words() {
        let as_layout = |text: &str, rest: &str, part: &str| {
            let layout = "2006-01-02T15:04:05Z07:00";
            format!("parsing time \"{text}\" as \"{layout}\": cannot parse \"{rest}\" as \"{part}\"")
        };
        for (text, rest, part) in [
            ("2024-01-01 00:00:00Z", " 00:00:00Z", "T"),
            ("2024-01-01t00:00:00Z", "t00:00:00Z", "T"),
            ("2024-01-01T00:00Z", "Z", ":"),
            ("2024-01-01T00:00:00", "", "Z07:00"),
            ("2024-01-01T00:00:00z", "z", "Z07:00"),
            ("2024-01-01T00:00:00+0100", "+0100", "Z07:00"),
            ("yesterday", "yesterday", "2006"),
            ("2024-1-01T00:00:00Z", "1-01T00:00:00Z", "01"),
            ("", "", "2006"),
        ] {
            assert_eq!(parse(text, Fraction::Any), Err(as_layout(text, rest, part)), "{text}");
        }
        for (text, why) in [
            ("2024-13-01T00:00:00Z", "parsing time \"2024-13-01T00:00:00Z\": month out of range"),
            ("2023-02-29T00:00:00Z", "parsing time \"2023-02-29T00:00:00Z\": day out of range"),
            ("2024-01-01T24:00:00Z", "parsing time \"2024-01-01T24:00:00Z\": hour out of range"),
            ("9999-12-31T23:59:59-00:01", "parsing time \"9999-12-31T23:59:59-00:01\": year out of range"),
            ("0000-01-01T00:00:00+00:01", "parsing time \"0000-01-01T00:00:00+00:01\": year out of range"),
            ("2024-01-01T00:00:00Z!", "parsing time \"2024-01-01T00:00:00Z!\": extra text: \"!\""),
        ] {
            assert_eq!(parse(text, Fraction::Any), Err(why.to_owned()));
        }
        let six = parse("2024-01-01T00:00:00Z", Fraction::Six).unwrap_err();
        assert!(six.ends_with("05.000000Z07:00\": cannot parse \"Z\" as \".000000\""), "{six}");
    }
}
