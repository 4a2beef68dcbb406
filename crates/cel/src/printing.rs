//! Holds the pattern of a `format` against the types of what it prints (`stringFormatValidator` of cel-go's
//! `ext/formatting.go`).

use crate::error::Fault;
use crate::functions::clauses::{Clause, Piece, next};
use crate::types::Type;

/// What is wrong with printing values of those types, which stand at those places, by a pattern at `at`.
pub(crate) fn fault<'t, 's: 't>(
    pattern: &str,
    at: usize,
    items: impl ExactSizeIterator<Item = (usize, &'t Type<'s>)>,
) -> Option<Fault> {
    let count = items.len();
    let mut items = items.enumerate();
    let mut rest = pattern;
    let mut wanted = 0;
    loop {
        let clause = match next(rest) {
            Err(message) => return Some(Fault { at, message }),
            Ok(None) => break,
            Ok(Some((piece, behind))) => {
                rest = behind;
                match piece {
                    Piece::Text(_) => continue,
                    Piece::Clause(clause, _) => clause,
                }
            }
        };
        let Some((_, (place, of))) = items.next() else {
            return Some(Fault { at, message: format!("index {wanted} out of range") });
        };
        wanted += 1;
        if !takes(clause, of) {
            return Some(Fault { at: place, message: clause.complaint(&name(of)) });
        }
    }
    (count > wanted).then(|| {
        let message =
            format!("too many arguments supplied to string.format (expected {wanted}, got {count})");
        Fault { at, message }
    })
}

/// What isn't known before it runs is let through.
fn takes(clause: Clause, of: &Type<'_>) -> bool {
    let is_known = !matches!(of, Type::Dyn | Type::Parameter(_));
    let fits = match clause {
        Clause::Text => {
            !matches!(of, Type::Object(_) | Type::Message(_) | Type::Opaque(_) | Type::Optional(_))
        }
        Clause::Decimal | Clause::Octal => matches!(of, Type::Int | Type::Uint),
        // Numbers that are none have names that are texts.
        Clause::Fixed | Clause::Scientific => matches!(of, Type::Double | Type::String),
        Clause::Binary => matches!(of, Type::Int | Type::Uint | Type::Bool),
        Clause::Hex { .. } => matches!(of, Type::Int | Type::Uint | Type::String | Type::Bytes),
    };
    fits || !is_known
}

/// A type's name without what it holds.
fn name(of: &Type<'_>) -> String {
    match of {
        Type::Parameter(_) => "dyn".into(),
        Type::Null => "null_type".into(),
        Type::Timestamp => "google.protobuf.Timestamp".into(),
        Type::Duration => "google.protobuf.Duration".into(),
        Type::List(_) => "list".into(),
        Type::Map(..) => "map".into(),
        Type::Optional(_) => "optional_type".into(),
        plain => plain.to_string(),
    }
}
