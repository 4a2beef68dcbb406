//! What an expression says by itself. cel-go works conversions of such values out, and compiles patterns, when it plans the
//! expression (`interpreter/decorators.go`), and refuses the whole when one fails, wherever it stands.

use std::collections::BTreeMap;

use crate::ast::{Expr, Kind, Literal};
use crate::budget::{Budget, MOST_OF_ONE};
use crate::error::Error;
use crate::eval::of_literal;
use crate::functions::{self, CONVERSIONS};
use crate::value::{Key, Value};

/// Why the first conversion, or search for a pattern, that can never work fails, if there is one.
pub(crate) fn planning_fault(root: &Expr) -> Option<String> {
    constant(root).err().map(|error| error.to_string())
}

/// The value of `expr` where it depends on nothing.
fn constant(expr: &Expr) -> Result<Option<Value<'_>>, Error> {
    Ok(match &expr.kind {
        Kind::Literal(literal) => Some(of_literal(literal)),
        Kind::Ident(_) => None,
        Kind::Select { operand, .. } => constant(operand).map(|_| None)?,
        Kind::Index { operand, index, .. } => all([&**operand, &**index])?.and(None),
        Kind::And(left, right) | Kind::Or(left, right) => all([&**left, &**right])?.and(None),
        Kind::Conditional(parts) => all(parts.as_ref())?.and(None),
        Kind::Message { fields, .. } => all(fields.iter().map(|(_, value, _)| value))?.and(None),
        Kind::Comprehension(of) => all([&of.range, &of.body].into_iter().chain(&of.filter))?.and(None),
        Kind::Call { function, target, arguments } => {
            let given = all(target.as_deref().into_iter().chain(arguments))?;
            if let ("find" | "findAll", Some(Kind::Literal(Literal::String(pattern)))) =
                (function.as_str(), arguments.first().map(|argument| &argument.kind))
            {
                functions::is_pattern(pattern).map_err(Error::Failed)?;
            }
            match given.as_deref() {
                Some([value]) if target.is_none() && CONVERSIONS.contains(&function.as_str()) => {
                    let value = std::slice::from_ref(value);
                    Some(functions::function(function, value, &mut Budget::new(MOST_OF_ONE))?)
                }
                _ => None,
            }
        }
        Kind::List(items) => {
            let values = all(items.iter().map(|(item, _)| item))?;
            values.filter(|_| items.iter().all(|(_, optional)| !optional)).map(Value::list)
        }
        Kind::Map(entries) => {
            let keys = all(entries.iter().map(|(key, _, _)| key))?;
            let values = all(entries.iter().map(|(_, value, _)| value))?;
            let plain = entries.iter().all(|(_, _, optional)| !optional);
            keys.zip(values).filter(|_| plain).and_then(|(keys, values)| {
                let keys = keys.iter().map(Key::of).collect::<Option<Vec<Key>>>()?;
                Some(Value::map(keys.into_iter().zip(values).collect::<BTreeMap<_, _>>()))
            })
        }
    })
}

/// The values of all of them, where none depends on anything.
fn all<'e>(parts: impl IntoIterator<Item = &'e Expr>) -> Result<Option<Vec<Value<'e>>>, Error> {
    // Each is looked at, also behind one that depends on something.
    let found: Vec<Option<Value<'e>>> = parts.into_iter().map(constant).collect::<Result<_, Error>>()?;
    Ok(found.into_iter().collect())
}
