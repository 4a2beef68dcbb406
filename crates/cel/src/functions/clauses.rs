//! The clauses of a `format` pattern: `%s`, `%.2f` and so on. The checker holds them against the types of what they
//! print, and the evaluator prints.

/// A piece of a pattern.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'p> {
    Text(&'p str),
    /// How one value is printed, and with what precision where it says so.
    Clause(Clause, Option<usize>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clause {
    Text,
    Decimal,
    Fixed,
    Scientific,
    Binary,
    Octal,
    Hex { upper: bool },
}

impl Clause {
    /// What is wrong with a value of that type.
    pub(crate) fn complaint(self, given: &str) -> String {
        let takes = match self {
            Clause::Text => {
                "string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, \
                 durations, and timestamps"
            }
            Clause::Decimal => "decimal clause can only be used on integers",
            Clause::Fixed => "fixed-point clause can only be used on doubles",
            Clause::Scientific => "scientific clause can only be used on doubles",
            Clause::Binary => "only integers and bools can be formatted as binary",
            Clause::Octal => "octal clause can only be used on integers",
            Clause::Hex { .. } => "only integers, byte buffers, and strings can be formatted as hex",
        };
        format!("error during formatting: {takes}, was given {given}")
    }
}

/// The most digits behind the point. Ours: what is printed is paid for afterwards, so it must be small.
const MOST_DIGITS: usize = 100;

/// The next piece of a pattern, and what is behind it; nothing at its end.
pub(crate) fn next(pattern: &str) -> Result<Option<(Piece<'_>, &str)>, String> {
    if pattern.is_empty() {
        return Ok(None);
    }
    let Some(rest) = pattern.strip_prefix('%') else {
        let (text, rest) = pattern.split_at(pattern.find('%').unwrap_or(pattern.len()));
        return Ok(Some((Piece::Text(text), rest)));
    };
    if let Some(behind) = rest.strip_prefix('%') {
        return Ok(Some((Piece::Text("%"), behind)));
    }
    let (precision, rest) = match rest.strip_prefix('.') {
        None => (None, rest),
        Some(behind) => {
            let end = behind.find(|c: char| !c.is_ascii_digit());
            let end = end.ok_or_else(|| unparsed("could not find end of precision specifier"))?;
            let digits = behind[..end].parse::<usize>().ok().filter(|digits| *digits <= MOST_DIGITS);
            let digits = digits.ok_or_else(|| unparsed("error while converting precision to integer"))?;
            (Some(digits), &behind[end..])
        }
    };
    let letter = rest.chars().next().ok_or_else(|| "unexpected end of string".to_owned())?;
    let clause = match letter {
        's' => Clause::Text,
        'd' => Clause::Decimal,
        'f' => Clause::Fixed,
        'e' => Clause::Scientific,
        'b' => Clause::Binary,
        'o' => Clause::Octal,
        'x' | 'X' => Clause::Hex { upper: letter == 'X' },
        letter => {
            let why = format!("unrecognized formatting clause \"{letter}\"");
            return Err(format!("could not parse formatting clause: {why}"));
        }
    };
    Ok(Some((Piece::Clause(clause, precision), &rest[1..])))
}

fn unparsed(why: &str) -> String {
    format!("could not parse formatting clause: error while parsing precision: {why}")
}
