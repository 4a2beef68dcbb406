//! How types stand to each other: which may be given for which, and what several have in common. As in cel-go's
//! `checker/types.go`.

use crate::ast::Literal;
use crate::types::Type;

/// The type of what there is none of yet, such as the items of `[]`: it becomes any other.
pub(crate) const FREE: Type<'static> = Type::Parameter(u8::MAX);

/// Whether something in the type is still free.
pub(crate) fn is_free(of: &Type<'_>) -> bool {
    match of {
        Type::Parameter(_) => true,
        Type::List(of) | Type::Optional(of) => is_free(of),
        Type::Map(key, value) => is_free(key) || is_free(value),
        _ => false,
    }
}

/// Whether `null` may stand for a value of the type.
fn is_nullable(of: &Type<'_>) -> bool {
    matches!(
        of,
        Type::Dyn
            | Type::Null
            | Type::Parameter(_)
            | Type::Timestamp
            | Type::Duration
            | Type::Optional(_)
            | Type::Object(_)
            | Type::Message(_)
            | Type::Opaque(_)
    )
}

/// Whether both are the same, as far as they are known.
pub(crate) fn equivalent(a: &Type<'_>, b: &Type<'_>) -> bool {
    match (a, b) {
        (Type::Parameter(_), _) | (_, Type::Parameter(_)) => true,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => equivalent(a, b),
        (Type::Map(k, v), Type::Map(l, w)) => equivalent(k, l) && equivalent(v, w),
        (a, b) => a == b,
    }
}

pub(crate) fn of_literal<'s>(literal: &Literal) -> Type<'s> {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}

/// The type of what is one or the other, if that makes sense.
pub(crate) fn join<'s>(a: &Type<'s>, b: &Type<'s>) -> Option<Type<'s>> {
    match (a, b) {
        (Type::Parameter(_), other) | (other, Type::Parameter(_)) => Some(other.clone()),
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::Null, other) | (other, Type::Null) => is_nullable(other).then(|| other.clone()),
        (Type::List(a), Type::List(b)) => Some(Type::list(join(a, b)?)),
        (Type::Optional(a), Type::Optional(b)) => Some(Type::optional(join(a, b)?)),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::Map(Box::new(join(k, l)?), Box::new(join(v, w)?))),
        (Type::Message(_), Type::Message(_)) if a != b => Some(Type::Dyn),
        // An object of a schema may be compared with a map.
        (Type::Object(_), Type::Map(..)) | (Type::Map(..), Type::Object(_)) => Some(Type::Dyn),
        (a, b) => (a == b).then(|| a.clone()),
    }
}

/// Whether a value of the type `found` can be given where `wanted` is asked for.
pub(crate) fn unify<'s>(wanted: &Type<'static>, found: &Type<'s>, bound: &mut [Option<Type<'s>>; 2]) -> bool {
    match (wanted, found) {
        (Type::Dyn, _) => true,
        (Type::Parameter(n), found) => {
            let slot = &mut bound[usize::from(*n).min(1)];
            let joined = match slot {
                Some(before) => join(before, found),
                None => Some(found.clone()),
            };
            match joined {
                Some(joined) => {
                    *slot = Some(joined);
                    true
                }
                None => false,
            }
        }
        (_, Type::Dyn | Type::Parameter(_)) => true,
        (wanted, Type::Null) => is_nullable(wanted),
        (Type::List(wanted), Type::List(found)) | (Type::Optional(wanted), Type::Optional(found)) => {
            unify(wanted, found, bound)
        }
        (Type::Map(k, v), Type::Map(l, w)) => unify(k, l, bound) && unify(v, w, bound),
        (wanted, found) => wanted == found,
    }
}

pub(crate) fn substitute<'s>(of: &Type<'static>, bound: &[Option<Type<'s>>; 2]) -> Type<'s> {
    match of {
        Type::Parameter(n) => bound[usize::from(*n).min(1)].clone().unwrap_or(FREE),
        Type::List(of) => Type::list(substitute(of, bound)),
        Type::Optional(of) => Type::optional(substitute(of, bound)),
        Type::Map(key, value) => {
            Type::Map(Box::new(substitute(key, bound)), Box::new(substitute(value, bound)))
        }
        other => other.clone(),
    }
}
