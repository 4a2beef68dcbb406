//! Holds an expression against the types of what it may use.

use serde_json::Value;

use crate::ast::{Access, Comprehension, Does, Expr, Kind, Literal, Sort};
use crate::error::Fault;
use crate::functions::type_named;
use crate::parser::qualified;
use crate::printing;
use crate::relations::{FREE, equivalent, is_free, join, of_literal, substitute, unify};
use crate::signatures;
use crate::sizes::SchemaPlace;
use crate::types::Type;

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
    let mut checker = Checker { environment, locals: Vec::new(), printing: false, faults: Vec::new() };
    let found = checker.check(expr);
    if checker.faults.is_empty() { Ok(found.settled()) } else { Err(checker.faults) }
}

struct Checker<'e, 's> {
    environment: &'e Environment<'s>,
    locals: Vec<(String, Type<'s>)>,
    /// What is printed may be of any types, also in one list.
    printing: bool,
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
        known.or_else(|| type_named(name).map(|_| Type::Type))
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
                let pattern = match target.as_deref() {
                    Some(Expr { kind: Kind::Literal(Literal::String(pattern)), .. }) => Some(pattern.clone()),
                    _ => None,
                };
                let target = target.as_deref_mut().map(|target| self.check(target));
                let printing = self.printing;
                self.printing |= function == "format";
                let arguments: Vec<Type<'s>> =
                    match (function.as_str(), target.as_ref(), arguments.as_mut_slice()) {
                        ("format", Some(_), [Expr { kind: Kind::List(items), .. }]) => {
                            let of: Vec<Type<'s>> =
                                items.iter_mut().map(|(item, _)| self.check(item)).collect();
                            if let Some(pattern) = pattern {
                                let items = items.iter().map(|(item, _)| item.at).zip(&of);
                                self.faults.extend(printing::fault(&pattern, at, items));
                            }
                            vec![Type::list(Type::Dyn)]
                        }
                        (_, _, arguments) => {
                            arguments.iter_mut().map(|argument| self.check(argument)).collect()
                        }
                    };
                self.printing = printing;
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
                let mut of = Alike::default();
                for (item, optional) in items {
                    let mut found = self.check(item);
                    if *optional {
                        found = self.unwrap_optional(item.at, found);
                    }
                    self.homogeneous(item.at, &mut of, found);
                }
                Type::list(of.joined())
            }
            Kind::Map(entries) => {
                let (mut keys, mut values) = (Alike::default(), Alike::default());
                for (key, value, optional) in entries {
                    let found = self.check(key);
                    self.homogeneous(key.at, &mut keys, found);
                    let mut found = self.check(value);
                    if *optional {
                        found = self.unwrap_optional(value.at, found);
                    }
                    self.homogeneous(value.at, &mut values, found);
                }
                Type::Map(Box::new(keys.joined()), Box::new(values.joined()))
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
        if !matches!(found, Type::Bool | Type::Dyn | Type::Parameter(_)) {
            self.fault(at, format!("expected type 'bool' but found '{found}'"));
        }
    }

    /// One more item of a list, or key or value of a map: all must be of the same type, unless they are printed.
    fn homogeneous(&mut self, at: usize, alike: &mut Alike<'s>, found: Type<'s>) {
        let Some((first, joined)) = &mut alike.0 else {
            alike.0 = Some((found.clone(), found));
            return;
        };
        if !self.printing && !equivalent(first, &found) {
            self.faults.push(Fault { at, message: format!("expected type '{first}' but found '{found}'") });
        }
        *joined = join(joined, &found).unwrap_or(Type::Dyn);
    }

    fn unwrap_optional(&mut self, at: usize, found: Type<'s>) -> Type<'s> {
        match found {
            Type::Optional(of) => *of,
            Type::Dyn | Type::Parameter(_) => Type::Dyn,
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
            Type::Dyn | Type::Parameter(_) => Some(Type::Dyn),
            Type::List(of) => {
                matches!(index, Type::Int | Type::Dyn | Type::Parameter(_)).then(|| (**of).clone())
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
                    // What is still free becomes what the first form wants.
                    Some(first) if target.iter().chain(arguments).any(is_free) => first,
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
            (Type::Dyn | Type::Parameter(_), _) => (Type::Dyn, Type::Dyn),
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
            Does::SortBy => {
                if !is_ordered(&body) {
                    let message = format!(
                        "found no matching overload for '@sortByAssociatedKeys' applied to '{range}.(list({body}))'"
                    );
                    return self.fault(at, message);
                }
                Type::list(first)
            }
            Does::OptMap | Does::OptFlatMap => Type::Dyn,
        }
    }

    fn optional_map(&mut self, at: usize, of: &mut Comprehension, range: Type<'s>) -> Type<'s> {
        let item = match range {
            Type::Optional(item) => *item,
            Type::Dyn | Type::Parameter(_) => Type::Dyn,
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

/// The type of the first of several, and that of all of them.
#[derive(Default)]
struct Alike<'s>(Option<(Type<'s>, Type<'s>)>);

impl<'s> Alike<'s> {
    fn joined(self) -> Type<'s> {
        self.0.map_or(FREE, |(_, joined)| joined)
    }
}

/// Whether its values have an order, so that they can be sorted by.
fn is_ordered(of: &Type<'_>) -> bool {
    let numbers = matches!(of, Type::Int | Type::Uint | Type::Double | Type::Dyn | Type::Parameter(_));
    numbers || matches!(of, Type::Bool | Type::String | Type::Bytes | Type::Timestamp | Type::Duration)
}

fn sort_of(of: &Type<'_>) -> Sort {
    match of {
        Type::Bool | Type::Int | Type::Uint | Type::Double | Type::Timestamp | Type::Duration => Sort::Scalar,
        Type::Optional(held) if sort_of(held) == Sort::Scalar => Sort::Scalar,
        Type::String => Sort::Text,
        Type::Bytes => Sort::Bytes,
        Type::List(item) if matches!(sort_of(item), Sort::Text | Sort::Bytes) => Sort::Texts,
        Type::List(_) => Sort::List,
        Type::Map(..) => Sort::Map,
        Type::Object(_) | Type::Message(_) => Sort::Object,
        Type::Opaque(_) => Sort::Opaque,
        Type::Dyn | Type::Null | Type::Type | Type::Optional(_) | Type::Parameter(_) => Sort::Any,
    }
}
