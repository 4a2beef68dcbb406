//! Evaluates an expression.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::ast::{Access, Comprehension, Does, Expr, Kind, Literal};
use crate::budget::Budget;
use crate::error::Error;
use crate::value::{Key, List, Map, Text, Value};
use crate::{functions, operators};

/// What the variables of an expression stand for.
pub trait Variables<'a> {
    /// The value of one, made now if need be; nothing if there is none of that name.
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<Value<'a>, Error>>;
}

impl<'a, const N: usize> Variables<'a> for [(&str, Value<'a>); N] {
    fn get(&self, name: &str, _: &mut Budget) -> Option<Result<Value<'a>, Error>> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| Ok(value.clone()))
    }
}

pub(crate) struct Evaluator<'a, 'v> {
    pub(crate) variables: &'v dyn Variables<'a>,
    pub(crate) locals: Vec<(&'a str, Value<'a>)>,
    pub(crate) budget: &'v mut Budget,
}

type Evaluated<'a> = Result<Value<'a>, Error>;

impl<'a> Evaluator<'a, '_> {
    pub(crate) fn eval(&mut self, expr: &'a Expr) -> Evaluated<'a> {
        self.budget.charge(1)?;
        match &expr.kind {
            Kind::Literal(literal) => Ok(of_literal(literal)),
            Kind::Ident(name) => self.variable(name),
            Kind::Select { operand, field, access } => {
                let operand = self.eval(operand)?;
                select(operand, field, *access)
            }
            Kind::Index { operand, index, optional } => {
                let (operand, index) = (self.eval(operand)?, self.eval(index)?);
                element(operand, &index, *optional)
            }
            Kind::Call { function, target, arguments } => self.call(function, target.as_deref(), arguments),
            Kind::And(left, right) => self.logical(left, right, false),
            Kind::Or(left, right) => self.logical(left, right, true),
            Kind::Conditional(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                match self.eval(condition)? {
                    Value::Bool(true) => self.eval(then),
                    Value::Bool(false) => self.eval(otherwise),
                    _ => Error::failed("no such overload"),
                }
            }
            Kind::List(items) => {
                let mut list = Vec::with_capacity(items.len());
                for (item, optional) in items {
                    list.extend(self.entry(item, *optional)?);
                }
                Ok(Value::list(list))
            }
            Kind::Map(entries) => {
                let mut map = BTreeMap::new();
                for (key, value, optional) in entries {
                    let key = self.eval(key)?;
                    let Some(key) = Key::of(&key) else {
                        return Error::failed(format!("unsupported key type: {}", key.type_name()));
                    };
                    let Some(value) = self.entry(value, *optional)? else { continue };
                    // As in cel-go, the last of those with the same key is the one.
                    map.insert(key, value);
                }
                Ok(Value::map(map))
            }
            Kind::Message { name, fields } => {
                let mut map = BTreeMap::new();
                for (field, value, optional) in fields {
                    if let Some(value) = self.entry(value, *optional)? {
                        map.insert(Key::String(Arc::from(field.as_str())), value);
                    }
                }
                Ok(Value::Message(name, Map::Made(Arc::new(map))))
            }
            Kind::Comprehension(comprehension) => self.comprehension(comprehension),
        }
    }

    /// An item of a literal; nothing for an optional that holds nothing.
    fn entry(&mut self, expr: &'a Expr, optional: bool) -> Result<Option<Value<'a>>, Error> {
        match (self.eval(expr)?, optional) {
            (Value::Optional(inner), true) => Ok(inner.map(|value| (*value).clone())),
            (_, true) => Error::failed("no such overload"),
            (value, false) => Ok(Some(value)),
        }
    }

    fn variable(&mut self, name: &'a str) -> Evaluated<'a> {
        if let Some((_, value)) = self.locals.iter().rev().find(|(known, _)| *known == name) {
            return Ok(value.clone());
        }
        if let Some(value) = self.variables.get(name, self.budget) {
            return value;
        }
        functions::type_named(name)
            .map(Value::Type)
            .ok_or_else(|| Error::Failed(format!("no such attribute(s): {name}")))
    }

    fn call(&mut self, function: &'a str, target: Option<&'a Expr>, arguments: &'a [Expr]) -> Evaluated<'a> {
        if let (None, [one]) = (target, arguments)
            && matches!(function, "!_" | "-_")
        {
            return operators::unary(function, &self.eval(one)?);
        }
        if let Some(target) = target {
            let target = self.eval(target)?;
            if let Value::Optional(held) = &target
                && let ("or" | "orValue", [otherwise]) = (function, arguments)
            {
                // What else there is is looked at only if nothing is held.
                return match held {
                    Some(_) if function == "or" => Ok(target),
                    Some(value) => Ok((**value).clone()),
                    None => self.eval(otherwise),
                };
            }
            let arguments = self.all(arguments)?;
            return functions::method(function, &target, &arguments, self.budget);
        }
        let arguments = self.all(arguments)?;
        if let [a, b] = arguments.as_slice()
            && let Some(result) = operators::binary(function, a, b, self.budget)
        {
            return result;
        }
        functions::function(function, &arguments, self.budget)
    }

    fn all(&mut self, arguments: &'a [Expr]) -> Result<Vec<Value<'a>>, Error> {
        arguments.iter().map(|argument| self.eval(argument)).collect()
    }

    /// `&&` and `||`: what decides, decides, whichever side it is on, and whatever the other side's error.
    fn logical(&mut self, left: &'a Expr, right: &'a Expr, decides: bool) -> Evaluated<'a> {
        let left = self.eval(left);
        match left {
            Ok(Value::Bool(found)) if found == decides => return Ok(Value::Bool(decides)),
            Err(Error::TooExpensive) => return left,
            _ => {}
        }
        match (left, self.eval(right)) {
            (_, Ok(Value::Bool(found))) if found == decides => Ok(Value::Bool(decides)),
            (_, Err(Error::TooExpensive)) => Err(Error::TooExpensive),
            (Ok(Value::Bool(_)), Ok(Value::Bool(_))) => Ok(Value::Bool(!decides)),
            (Err(error), _) | (_, Err(error)) => Err(error),
            _ => Error::failed("no such overload"),
        }
    }

    fn comprehension(&mut self, of: &'a Comprehension) -> Evaluated<'a> {
        let range = self.eval(&of.range)?;
        if matches!(of.does, Does::OptMap | Does::OptFlatMap) {
            let Value::Optional(held) = range else { return Error::failed("no such overload") };
            let Some(value) = held else { return Ok(Value::Optional(None)) };
            self.locals.push((&of.first, (*value).clone()));
            let body = self.eval(&of.body);
            self.locals.pop();
            return if of.does == Does::OptMap { body.map(Value::some) } else { body };
        }
        let depth = self.locals.len();
        let result = match &range {
            Value::List(list) => {
                let items = list.iter().enumerate().map(|(at, item)| (Value::Int(at as i64), item));
                self.walk(of, items, false)
            }
            Value::Map(map) => self.walk(of, map.iter().map(|(key, value)| (key.to_value(), value)), true),
            _ => Error::failed("no such overload"),
        };
        self.locals.truncate(depth);
        result
    }

    fn walk(
        &mut self,
        of: &'a Comprehension,
        items: impl Iterator<Item = (Value<'a>, Value<'a>)>,
        over_map: bool,
    ) -> Evaluated<'a> {
        let mut out = Gathered::default();
        let mut failed = None;
        for (key, item) in items {
            self.budget.charge(1)?;
            let depth = self.locals.len();
            let subject = match &of.second {
                Some(second) => {
                    self.locals.push((&of.first, key.clone()));
                    self.locals.push((second, item.clone()));
                    item
                }
                None => {
                    let subject = if over_map { key.clone() } else { item };
                    self.locals.push((&of.first, subject.clone()));
                    subject
                }
            };
            let step = self.step(of, key, subject, &mut out);
            self.locals.truncate(depth);
            match step {
                Ok(Some(decided)) => return Ok(decided),
                Ok(None) => {}
                // An error counts only if nothing else decides.
                Err(error @ Error::Failed(_)) if matches!(of.does, Does::All | Does::Exists) => {
                    failed.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => out.finish(of.does, self.budget),
        }
    }

    /// One item; something once the whole is decided.
    fn step(
        &mut self,
        of: &'a Comprehension,
        key: Value<'a>,
        item: Value<'a>,
        out: &mut Gathered<'a>,
    ) -> Result<Option<Value<'a>>, Error> {
        if let Some(filter) = &of.filter
            && !truth(&self.eval(filter)?)?
        {
            return Ok(None);
        }
        let body = self.eval(&of.body)?;
        match of.does {
            Does::All if !truth(&body)? => return Ok(Some(Value::Bool(false))),
            Does::Exists if truth(&body)? => return Ok(Some(Value::Bool(true))),
            Does::All | Does::Exists => {}
            Does::ExistsOne => out.count += usize::from(truth(&body)?),
            Does::Filter => {
                if truth(&body)? {
                    out.list.push(item);
                }
            }
            Does::Map => out.list.push(body),
            Does::SortBy => out.sorted.push((body, item)),
            Does::TransformMap => {
                if let Some(key) = Key::of(&key) {
                    out.map.insert(key, body);
                }
            }
            Does::TransformMapEntry => {
                let Value::Map(entries) = body else { return Error::failed("no such overload") };
                self.budget.charge(entries.len() as u64)?;
                for (key, value) in entries.iter() {
                    if out.map.insert(key.clone(), value).is_some() {
                        return Error::failed(format!("insert failed: key {key} already exists"));
                    }
                }
            }
            Does::OptMap | Does::OptFlatMap => {}
        }
        Ok(None)
    }
}

/// What a walk has found so far.
#[derive(Default)]
struct Gathered<'a> {
    count: usize,
    list: Vec<Value<'a>>,
    sorted: Vec<(Value<'a>, Value<'a>)>,
    map: BTreeMap<Key, Value<'a>>,
}

impl<'a> Gathered<'a> {
    fn finish(self, does: Does, budget: &mut Budget) -> Evaluated<'a> {
        Ok(match does {
            Does::All => Value::Bool(true),
            Does::Exists => Value::Bool(false),
            Does::ExistsOne => Value::Bool(self.count == 1),
            Does::Filter | Does::Map => Value::list(self.list),
            Does::SortBy => {
                let (keys, items): (Vec<_>, Vec<_>) = self.sorted.into_iter().unzip();
                Value::list(functions::sort_by(&keys, items, budget)?)
            }
            Does::TransformMap | Does::TransformMapEntry => Value::map(self.map),
            Does::OptMap | Does::OptFlatMap => Value::Optional(None),
        })
    }
}

fn truth(value: &Value<'_>) -> Result<bool, Error> {
    match value {
        Value::Bool(b) => Ok(*b),
        _ => Error::failed("no such overload"),
    }
}

pub(crate) fn of_literal(literal: &Literal) -> Value<'_> {
    match literal {
        Literal::Null => Value::Null,
        Literal::Bool(b) => Value::Bool(*b),
        Literal::Int(n) => Value::Int(*n),
        Literal::Uint(n) => Value::Uint(*n),
        Literal::Double(n) => Value::Double(*n),
        Literal::String(text) => Value::String(Text::Borrowed(text)),
        Literal::Bytes(bytes) => Value::Bytes(Arc::from(bytes.as_slice())),
    }
}

fn select<'a>(operand: Value<'a>, field: &str, access: Access) -> Evaluated<'a> {
    match operand {
        Value::Optional(None) => {
            Ok(if access == Access::Presence { Value::Bool(false) } else { Value::Optional(None) })
        }
        Value::Optional(Some(inner)) => {
            let access = if access == Access::Value { Access::Optional } else { access };
            select((*inner).clone(), field, access)
        }
        Value::Map(map) | Value::Message(_, map) => match (map.field(field), access) {
            (found, Access::Presence) => Ok(Value::Bool(found.is_some())),
            (found, Access::Optional) => Ok(Value::Optional(found.map(Arc::new))),
            (Some(found), Access::Value) => Ok(found),
            (None, Access::Value) => Error::failed(format!("no such key: {field}")),
        },
        other => Error::failed(format!("type '{}' does not support field selection", other.type_name())),
    }
}

fn element<'a>(operand: Value<'a>, index: &Value<'a>, optional: bool) -> Evaluated<'a> {
    let found = match operand {
        Value::Optional(None) => return Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => return element((*inner).clone(), index, true),
        Value::List(list) => at(&list, index).ok_or_else(|| match index {
            Value::Int(n) => format!("index out of bounds: {n}"),
            other => format!("unsupported index type '{}' in list", other.type_name()),
        }),
        Value::Map(map) => map.get(index).ok_or_else(|| match Key::of(index) {
            Some(key) => format!("no such key: {key}"),
            None => format!("unsupported key type: {}", index.type_name()),
        }),
        _ => Err("no such overload".to_owned()),
    };
    match found {
        Ok(found) if optional => Ok(Value::some(found)),
        Ok(found) => Ok(found),
        Err(_) if optional => Ok(Value::Optional(None)),
        Err(why) => Err(Error::Failed(why)),
    }
}

fn at<'a>(list: &List<'a>, index: &Value<'a>) -> Option<Value<'a>> {
    match Key::of(index)? {
        Key::Int(n) => list.get(usize::try_from(n).ok()?),
        _ => None,
    }
}
