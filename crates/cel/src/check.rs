//! Holds an expression against the types of what it may use.

use serde_json::Value;

use crate::ast::{Access, Comprehension, Does, Expr, Kind, Literal, Sort};
use crate::error::Fault;
use crate::parser::qualified;
use crate::signatures;
use crate::sizes::SchemaPlace;
use crate::types::Type;

/// The names of types, as values.
const TYPES: [&str; 12] = [
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
];

/// What an expression may use.
#[derive(Debug, Clone, Default)]
pub struct Environment<'s> {
    variables: Vec<(String, Type<'s>)>,
    schemas: Vec<(String, &'s Value)>,
    messages: bool,
}

impl<'s> Environment<'s> {
    /// One more variable; its name may be qualified, such as `variables.a`.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, of: Type<'s>) -> Self {
        self.variables.push((name.into(), of));
        self
    }

    /// One more variable, and the schema of its values, which tells how long they may be.
    #[must_use]
    pub fn with_schema(mut self, name: &str, of: Type<'s>, schema: &'s Value) -> Self {
        self.schemas.push((name.to_owned(), schema));
        self.with(name, of)
    }

    /// Expressions may make objects of the types `Object`, `Object.spec` and so on, and `JSONPatch`.
    #[must_use]
    pub fn with_messages(mut self) -> Self {
        self.messages = true;
        self
    }

    pub(crate) fn place(&self, name: &str) -> Option<SchemaPlace<'s>> {
        self.schemas.iter().find(|(known, _)| known == name).map(|(_, schema)| SchemaPlace::Of(schema))
    }

    fn variable(&self, name: &str) -> Option<&Type<'s>> {
        self.variables.iter().rev().find(|(known, _)| known == name).map(|(_, of)| of)
    }
}

/// Finds the type of `expr`, and resolves qualified names in it.
pub(crate) fn check<'s>(environment: &Environment<'s>, expr: &mut Expr) -> Result<Type<'s>, Vec<Fault>> {
    let mut checker = Checker { environment, locals: Vec::new(), faults: Vec::new() };
    let found = checker.check(expr);
    if checker.faults.is_empty() { Ok(found) } else { Err(checker.faults) }
}

struct Checker<'e, 's> {
    environment: &'e Environment<'s>,
    locals: Vec<(String, Type<'s>)>,
    faults: Vec<Fault>,
}

impl<'s> Checker<'_, 's> {
    fn fault(&mut self, at: usize, message: String) -> Type<'s> {
        self.faults.push(Fault { at, message });
        Type::Dyn
    }

    fn local(&self, name: &str) -> Option<&Type<'s>> {
        self.locals.iter().rev().find(|(known, _)| known == name).map(|(_, of)| of)
    }

    /// The type of a variable or of a type's name.
    fn named(&self, name: &str) -> Option<Type<'s>> {
        let known = self.local(name).or_else(|| self.environment.variable(name)).cloned();
        known.or_else(|| TYPES.contains(&name).then_some(Type::Type))
    }

    fn check(&mut self, expr: &mut Expr) -> Type<'s> {
        let found = self.type_of(expr);
        expr.sort = sort_of(&found);
        found
    }

    fn type_of(&mut self, expr: &mut Expr) -> Type<'s> {
        let at = expr.at;
        if let Kind::Select { access: Access::Value, .. } = expr.kind
            && let Some(name) = qualified(expr)
            && let Some(first) = name.split('.').next()
            && self.local(first).is_none()
            && let Some(found) = self.named(&name)
        {
            expr.kind = Kind::Ident(name);
            return found;
        }
        match &mut expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(name) => {
                let name = name.clone();
                self.named(&name).unwrap_or_else(|| {
                    self.fault(at, format!("undeclared reference to '{name}' (in container '')"))
                })
            }
            Kind::Select { operand, field, access } => {
                let (operand, field, access) = (self.check(operand), field.clone(), *access);
                self.select(at, operand, &field, access)
            }
            Kind::Index { operand, index, optional } => {
                let (operand, index, optional) = (self.check(operand), self.check(index), *optional);
                self.index(at, operand, index, optional)
            }
            Kind::Call { function, target, arguments } => {
                if let Some(name) = target.as_deref().and_then(|target| self.namespaced(target, function)) {
                    (*function, *target) = (name, None);
                }
                let target = target.as_deref_mut().map(|target| self.check(target));
                // What is formatted may be of any types, also in one list.
                if let ("format", [Expr { kind: Kind::List(items), .. }]) =
                    (function.as_str(), arguments.as_mut_slice())
                {
                    for (item, _) in items {
                        self.check(item);
                    }
                    let function = function.clone();
                    return self.call(at, &function, target, &[Type::list(Type::Dyn)]);
                }
                let arguments: Vec<Type<'s>> =
                    arguments.iter_mut().map(|argument| self.check(argument)).collect();
                let function = function.clone();
                self.call(at, &function, target, &arguments)
            }
            Kind::And(left, right) | Kind::Or(left, right) => {
                for side in [left, right] {
                    let found = self.check(side);
                    self.expect_bool(side.at, &found);
                }
                Type::Bool
            }
            Kind::Conditional(parts) => {
                let [condition, then, otherwise] = parts.as_mut();
                let found = self.check(condition);
                self.expect_bool(condition.at, &found);
                let (then, otherwise) = (self.check(then), self.check(otherwise));
                join(&then, &otherwise).unwrap_or_else(|| {
                    let message = format!(
                        "found no matching overload for '_?_:_' applied to '(bool, {then}, {otherwise})'"
                    );
                    self.fault(at, message)
                })
            }
            Kind::List(items) => {
                let mut of: Option<Type<'s>> = None;
                for (item, optional) in items {
                    let mut found = self.check(item);
                    if *optional {
                        found = self.unwrap_optional(item.at, found);
                    }
                    of = Some(self.homogeneous(item.at, of, found));
                }
                Type::list(of.unwrap_or(Type::Dyn))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (None, None);
                for (key, value, optional) in entries {
                    let found = self.check(key);
                    keys = Some(self.homogeneous(key.at, keys, found));
                    let mut found = self.check(value);
                    if *optional {
                        found = self.unwrap_optional(value.at, found);
                    }
                    values = Some(self.homogeneous(value.at, values, found));
                }
                Type::Map(Box::new(keys.unwrap_or(Type::Dyn)), Box::new(values.unwrap_or(Type::Dyn)))
            }
            Kind::Message { name, fields } => {
                let name = name.clone();
                let known = name == "JSONPatch" || name == "Object" || name.starts_with("Object.");
                if !self.environment.messages || !known {
                    return self.fault(at, format!("undeclared reference to '{name}' (in container '')"));
                }
                for (field, value, optional) in fields {
                    let mut found = self.check(value);
                    if *optional {
                        found = self.unwrap_optional(value.at, found);
                    }
                    self.message_field(value.at, &name, field, &found);
                }
                Type::Message(name)
            }
            Kind::Comprehension(comprehension) => self.comprehension(at, comprehension),
        }
    }

    /// The name of a function such as `sets.contains`, which is written like a method.
    fn namespaced(&self, target: &Expr, function: &str) -> Option<String> {
        let Kind::Ident(space) = &target.kind else { return None };
        let name = format!("{space}.{function}");
        (self.named(space).is_none() && signatures::of(&name).is_some()).then_some(name)
    }

    fn expect_bool(&mut self, at: usize, found: &Type<'s>) {
        if !matches!(found, Type::Bool | Type::Dyn) {
            self.fault(at, format!("expected type 'bool' but found '{found}'"));
        }
    }

    fn homogeneous(&mut self, at: usize, before: Option<Type<'s>>, found: Type<'s>) -> Type<'s> {
        let Some(before) = before else { return found };
        join(&before, &found)
            .unwrap_or_else(|| self.fault(at, format!("expected type '{before}' but found '{found}'")))
    }

    fn unwrap_optional(&mut self, at: usize, found: Type<'s>) -> Type<'s> {
        match found {
            Type::Optional(of) => *of,
            Type::Dyn => Type::Dyn,
            found => self.fault(at, format!("expected type 'optional_type({found})' but found '{found}'")),
        }
    }

    fn message_field(&mut self, at: usize, message: &str, field: &str, found: &Type<'s>) {
        if message == "JSONPatch" {
            let fits = match field {
                "op" | "path" | "from" => matches!(found, Type::String | Type::Dyn),
                "value" => true,
                _ => {
                    self.fault(at, format!("undefined field '{field}'"));
                    return;
                }
            };
            if !fits {
                self.fault(
                    at,
                    format!("expected type of field '{field}' is 'string' but provided type is '{found}'"),
                );
            }
            return;
        }
        let made = match found {
            Type::List(of) => of,
            Type::Map(_, of) => of,
            found => found,
        };
        let wanted = format!("{message}.{field}");
        if let Type::Message(name) = made
            && *name != wanted
        {
            self.fault(at, format!("unexpected type name {name:?}, expected {wanted:?}, which matches field name path from root Object type"));
        }
    }

    fn select(&mut self, at: usize, operand: Type<'s>, field: &str, access: Access) -> Type<'s> {
        let (operand, through_optional) = match operand {
            Type::Optional(of) => (*of, true),
            other => (other, false),
        };
        let found = match &operand {
            Type::Dyn | Type::Parameter(_) => Type::Dyn,
            Type::Map(_, value) => (**value).clone(),
            Type::Object(_) => match operand.field(field) {
                Some(found) => found,
                None => return self.fault(at, format!("undefined field '{field}'")),
            },
            Type::Message(_) => Type::Dyn,
            other => {
                let message = format!("type '{other}' does not support field selection");
                return self.fault(at, message);
            }
        };
        match access {
            Access::Presence => Type::Bool,
            Access::Optional => Type::optional(found),
            Access::Value if through_optional => Type::optional(found),
            Access::Value => found,
        }
    }

    fn index(&mut self, at: usize, operand: Type<'s>, index: Type<'s>, optional: bool) -> Type<'s> {
        let (operand, through_optional) = match operand {
            Type::Optional(of) => (*of, true),
            other => (other, false),
        };
        let found = match &operand {
            Type::Dyn => Some(Type::Dyn),
            Type::List(of) => {
                matches!(index, Type::Int | Type::Uint | Type::Double | Type::Dyn).then(|| (**of).clone())
            }
            Type::Map(key, value) => join(key, &index).map(|_| (**value).clone()),
            _ => None,
        };
        match found {
            Some(found) if optional || through_optional => Type::optional(found),
            Some(found) => found,
            None => {
                let message =
                    format!("found no matching overload for '_[_]' applied to '({operand}, {index})'");
                self.fault(at, message)
            }
        }
    }

    fn call(
        &mut self,
        at: usize,
        function: &str,
        target: Option<Type<'s>>,
        arguments: &[Type<'s>],
    ) -> Type<'s> {
        // What helps to make patches is there where patches are made.
        let is_there = self.environment.messages || !function.starts_with("jsonpatch.");
        let Some(forms) = signatures::of(function).filter(|_| is_there) else {
            return self.fault(at, format!("undeclared reference to '{function}' (in container '')"));
        };
        let mut result: Option<Type<'s>> = None;
        for form in forms {
            let mut bound = [None, None];
            let fits = match (&form.receiver, &target) {
                (None, None) => true,
                (Some(wanted), Some(found)) => unify(wanted, found, &mut bound),
                _ => false,
            };
            let fits = fits
                && form.arguments.len() == arguments.len()
                && form
                    .arguments
                    .iter()
                    .zip(arguments)
                    .all(|(wanted, found)| unify(wanted, found, &mut bound));
            if fits {
                let found = substitute(&form.result, &bound);
                result = Some(match result {
                    None => found,
                    Some(other) if other == found => other,
                    Some(_) => Type::Dyn,
                });
            }
        }
        result.unwrap_or_else(|| {
            let words: Vec<String> = arguments.iter().map(Type::to_string).collect();
            let words = match &target {
                Some(target) => format!("{target}.({})", words.join(", ")),
                None => format!("({})", words.join(", ")),
            };
            self.fault(at, format!("found no matching overload for '{function}' applied to '{words}'"))
        })
    }

    fn comprehension(&mut self, at: usize, of: &mut Comprehension) -> Type<'s> {
        let range = self.check(&mut of.range);
        if matches!(of.does, Does::OptMap | Does::OptFlatMap) {
            return self.optional_map(at, of, range);
        }
        let (first, second) = match (&range, of.second.is_some()) {
            (Type::List(item), false) => ((**item).clone(), Type::Dyn),
            (Type::List(item), true) => (Type::Int, (**item).clone()),
            (Type::Map(key, value), _) => ((**key).clone(), (**value).clone()),
            (Type::Dyn, _) => (Type::Dyn, Type::Dyn),
            (other, _) => {
                let message = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(of.range.at, message);
                (Type::Dyn, Type::Dyn)
            }
        };
        let depth = self.locals.len();
        self.locals.push((of.first.clone(), first.clone()));
        if let Some(name) = &of.second {
            self.locals.push((name.clone(), second));
        }
        if let Some(filter) = &mut of.filter {
            let found = self.check(filter);
            self.expect_bool(filter.at, &found);
        }
        let body = self.check(&mut of.body);
        self.locals.truncate(depth);
        match of.does {
            Does::All | Does::Exists | Does::ExistsOne => {
                self.expect_bool(of.body.at, &body);
                Type::Bool
            }
            Does::Filter => {
                self.expect_bool(of.body.at, &body);
                Type::list(first)
            }
            Does::Map => Type::list(body),
            Does::TransformMap => {
                let key = if matches!(range, Type::List(_)) { Type::Int } else { first };
                Type::Map(Box::new(key), Box::new(body))
            }
            Does::TransformMapEntry => match body {
                body @ (Type::Map(..) | Type::Dyn) => body,
                other => self.fault(of.body.at, format!("expected a map but found '{other}'")),
            },
            Does::SortBy => Type::list(first),
            Does::OptMap | Does::OptFlatMap => Type::Dyn,
        }
    }

    fn optional_map(&mut self, at: usize, of: &mut Comprehension, range: Type<'s>) -> Type<'s> {
        let item = match range {
            Type::Optional(item) => *item,
            Type::Dyn => Type::Dyn,
            other => self.fault(at, format!("expected an optional but found '{other}'")),
        };
        self.locals.push((of.first.clone(), item));
        let body = self.check(&mut of.body);
        self.locals.pop();
        match (of.does, body) {
            (Does::OptMap, body) => Type::optional(body),
            (_, body @ (Type::Optional(_) | Type::Dyn)) => body,
            (_, other) => self.fault(of.body.at, format!("expected an optional but found '{other}'")),
        }
    }
}

fn sort_of(of: &Type<'_>) -> Sort {
    match of {
        Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration => Sort::Scalar,
        Type::Optional(held) if sort_of(held) == Sort::Scalar => Sort::Scalar,
        Type::String | Type::Bytes => Sort::Text,
        Type::List(item) if sort_of(item) == Sort::Text => Sort::Texts,
        Type::List(_) => Sort::List,
        Type::Map(..) => Sort::Map,
        Type::Object(_) | Type::Message(_) => Sort::Object,
        Type::Opaque(_) => Sort::Opaque,
        Type::Dyn | Type::Null | Type::Type | Type::Optional(_) | Type::Parameter(_) => Sort::Any,
    }
}

fn of_literal<'s>(literal: &Literal) -> Type<'s> {
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
fn join<'s>(a: &Type<'s>, b: &Type<'s>) -> Option<Type<'s>> {
    match (a, b) {
        (Type::Dyn, _) | (_, Type::Dyn) => Some(Type::Dyn),
        (Type::Null, other) | (other, Type::Null) => Some(other.clone()),
        (Type::List(a), Type::List(b)) => Some(Type::list(join(a, b)?)),
        (Type::Optional(a), Type::Optional(b)) => Some(Type::optional(join(a, b)?)),
        (Type::Map(k, v), Type::Map(l, w)) => Some(Type::Map(Box::new(join(k, l)?), Box::new(join(v, w)?))),
        (Type::Object(_), Type::Object(_)) | (Type::Message(_), Type::Message(_)) if a != b => {
            Some(Type::Dyn)
        }
        // An object of a schema may be compared with a map.
        (Type::Object(_), Type::Map(..)) | (Type::Map(..), Type::Object(_)) => Some(Type::Dyn),
        (a, b) => (a == b).then(|| a.clone()),
    }
}

/// Whether a value of the type `found` can be given where `wanted` is asked for.
fn unify<'s>(wanted: &Type<'static>, found: &Type<'s>, bound: &mut [Option<Type<'s>>; 2]) -> bool {
    match (wanted, found) {
        (Type::Dyn, _) | (_, Type::Dyn) => true,
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
        (Type::List(wanted), Type::List(found)) | (Type::Optional(wanted), Type::Optional(found)) => {
            unify(wanted, found, bound)
        }
        (Type::Map(k, v), Type::Map(l, w)) => unify(k, l, bound) && unify(v, w, bound),
        (wanted, found) => wanted == found,
    }
}

fn substitute<'s>(of: &Type<'static>, bound: &[Option<Type<'s>>; 2]) -> Type<'s> {
    match of {
        Type::Parameter(n) => bound[usize::from(*n).min(1)].clone().unwrap_or(Type::Dyn),
        Type::List(of) => Type::list(substitute(of, bound)),
        Type::Optional(of) => Type::optional(substitute(of, bound)),
        Type::Map(key, value) => {
            Type::Map(Box::new(substitute(key, bound)), Box::new(substitute(value, bound)))
        }
        other => other.clone(),
    }
}
