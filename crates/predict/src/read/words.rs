//! Words of command lines, and times as different programs write them.

/// The words of a command line or of a file of arguments: quotes as a shell has them, a backslash at a line's end joins it with the
/// next, and lines that begin with `#` are remarks. Variables stay as they are: what they hold nobody knows here.
pub(crate) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut at_line_start = true;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let begins = std::mem::replace(&mut at_line_start, false);
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (Some('"') | None, '\\') => match letters.next() {
                Some('\n') => at_line_start = word.is_none(),
                Some(next) => word.get_or_insert_default().push(next),
                None => {}
            },
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '"' | '\'') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (None, '#') if begins && word.is_none() => {
                while letters.next_if(|next| *next != '\n').is_some() {}
            }
            (None, _) if letter.is_whitespace() => {
                words.extend(word.take());
                at_line_start = letter == '\n' || begins;
            }
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

/// The flags among words: `--name=value`, `--name value`, and `--name` alone for `true`. One dash does as well, as with Go.
pub(crate) fn flags(words: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next() {
        let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')).filter(|n| !n.is_empty())
        else {
            continue;
        };
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => {
                let value = rest.next_if(|next| !next.starts_with('-'));
                (name, value.map_or_else(|| "true".into(), Clone::clone))
            }
        };
        found.push((name.to_owned(), value));
    }
    found
}

/// A length of time in milliseconds: numbers with units (`1m30s`, `500ms`, `0.2s`, `10us`), or a number alone in `unit` milliseconds.
pub(crate) fn milliseconds(text: &str, unit: f64) -> Option<u64> {
    let text = text.trim();
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        let letters = rest[digits..].find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len() - digits);
        let factor = match &rest[digits..digits + letters] {
            "" if rest.len() == text.len() => unit,
            "us" => 0.001,
            "ms" => 1.0,
            "s" => 1000.0,
            "m" => 60_000.0,
            "h" => 3_600_000.0,
            "d" => 86_400_000.0,
            _ => return None,
        };
        total += number * factor;
        rest = rest[digits + letters..].trim_start();
    }
    // A float that is too large becomes the largest number.
    (!text.is_empty()).then_some(total.round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_into_words_as_a_shell_does_it() {
        let text = "# a remark\n/usr/bin/etcd \\\n  --name 'n 1' --x=\"a \\\" b\" \\\n  # kept apart\n -y";
        assert_eq!(words(text), ["/usr/bin/etcd", "--name", "n 1", "--x=a \" b", "-y"]);
        assert_eq!(words("a#b '' c'"), ["a#b", "", "c"], "an open quote ends with the text");
    }

    #[test]
    fn flags_come_in_three_forms() {
        let line = words("kube-apiserver --a=1 --b 2 --c --d=x=y -e 3 --");
        let found = flags(&line);
        let found: Vec<_> = found.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(found, [("a", "1"), ("b", "2"), ("c", "true"), ("d", "x=y"), ("e", "3")]);
    }

    #[test]
    fn times_are_read_as_each_program_writes_them() {
        for (text, unit, ms) in [
            ("1m30s", 1.0, Some(90_000)),
            ("500ms", 1.0, Some(500)),
            ("0.2", 1000.0, Some(200)),
            ("2000", 1.0, Some(2000)),
            ("1m 30s", 1.0, Some(90_000)),
            ("1e9h", 1.0, None),
            ("s", 1.0, None),
            ("", 1.0, None),
            ("1s5", 1.0, None),
            ("9".repeat(400).as_str(), 1.0, Some(u64::MAX)),
        ] {
            assert_eq!(milliseconds(text, unit), ms, "{text}");
        }
    }
}
