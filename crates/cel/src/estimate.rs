//! What an expression may cost at most, by the sizes that its schemas allow (KEP-2876).
//!
//! Follows cel-go's `checker/cost.go` and `ext/lists.go`, and `pkg/cel/library/cost.go` of apiserver. Rules that may cost
//! too much are refused when they are written, so a rule that Kubernetes takes must come to the same number here: no
//! constant below is ours to choose.

use crate::ast::{Access, Comprehension, Does, Expr, Kind, Literal, Sort};
use crate::check::Environment;
use crate::sizes::{KEYS, SchemaPlace, Sizes};

/// What it costs to make a list, a map or an object: `ListCreateBaseCost`, `MapCreateBaseCost` and `StructCreateBaseCost`
/// of cel-go's `common/cost.go`.
const LIST: u64 = 10;
const MAP: u64 = 30;
const MESSAGE: u64 = 40;
/// What it costs to look at one character, where a step costs 1: `StringTraversalCostFactor` of the same file.
const CHARACTER: f64 = 0.1;
/// What one character of a pattern makes of each that it is held against: `RegexStringLengthCostFactor` of the same file. A
/// part of a pattern is guessed to be four characters long.
const PATTERN: f64 = 0.25;
/// What asking the authorizer costs (`check`): so much that an expression can ask twice and no more, of the 1,000,000 that
/// one may cost.
const ASKING: u64 = 350_000;
/// How long the pattern of a named format is taken to be: `MaxNameFormatRegexSize` in `pkg/cel/limits.go` of apiserver.
const FORMAT: u64 = 128;

/// How long something is.
#[derive(Debug, Clone, Copy)]
struct Size {
    least: u64,
    most: u64,
}

/// No schema limits it: whatever costs by such a size costs more than any rule may.
const UNKNOWN: Size = Size { least: 0, most: u64::MAX };
const ONE: Size = Size { least: 1, most: 1 };

impl Size {
    fn exactly(size: usize) -> Self {
        Size { least: size as u64, most: size as u64 }
    }

    fn plus(self, other: Size) -> Self {
        Size { least: self.least.saturating_add(other.least), most: self.most.saturating_add(other.most) }
    }

    fn times(self, other: Size) -> Self {
        Size { least: self.least.saturating_mul(other.least), most: self.most.saturating_mul(other.most) }
    }

    fn or(self, other: Size) -> Self {
        Size { least: self.least.min(other.least), most: self.most.max(other.most) }
    }

    fn reading(self) -> u64 {
        scaled(self.most, CHARACTER)
    }
}

/// `cost` times `factor`, rounded up.
fn scaled(cost: u64, factor: f64) -> u64 {
    (cost as f64 * factor).ceil() as u64
}

/// What is known of a part of an expression.
#[derive(Debug, Clone, Copy)]
struct Estimate<'s> {
    cost: u64,
    size: Option<Size>,
    /// Of each item, or of each key and each value.
    entries: Option<[Size; 2]>,
    place: Option<SchemaPlace<'s>>,
    sort: Sort,
}

impl Estimate<'_> {
    fn size(&self) -> Size {
        self.size.unwrap_or(UNKNOWN)
    }
}

/// The most that `root`, which is checked, may cost.
pub(crate) fn estimate<'s>(environment: &Environment<'s>, sizes: &Sizes<'s>, root: &Expr) -> u64 {
    Estimator { environment, sizes, locals: Vec::new() }.expr(root).cost
}

struct Estimator<'e, 's, 'x> {
    environment: &'e Environment<'s>,
    sizes: &'e Sizes<'s>,
    locals: Vec<(&'x str, Option<SchemaPlace<'s>>, Option<Size>)>,
}

impl<'s, 'x> Estimator<'_, 's, 'x> {
    /// What is known of an expression whose place and size these are, where they are known.
    fn known(
        &self,
        expr: &Expr,
        cost: u64,
        place: Option<SchemaPlace<'s>>,
        size: Option<Size>,
    ) -> Estimate<'s> {
        let of_place = || place.and_then(|place| self.sizes.most(place));
        let size = size
            .or_else(|| of_place().map(|most| Size { least: 0, most }))
            .or_else(|| (expr.sort == Sort::Scalar).then_some(ONE));
        Estimate { cost, size, entries: None, place, sort: expr.sort }
    }

    /// The size of a name that is no variable, such as that of a type: upstream looks for it in the schema of `self`, from
    /// its second part on, and so finds that schema itself. Rules are accepted by it, so it must be so here.
    fn of_name(&self) -> Option<Size> {
        let most = self.sizes.most(self.environment.place("self")?)?;
        Some(Size { least: 0, most })
    }

    fn expr(&mut self, expr: &'x Expr) -> Estimate<'s> {
        match &expr.kind {
            Kind::Literal(literal) => self.known(expr, 0, None, Some(of_literal(literal))),
            Kind::Ident(name) => match self.locals.iter().rev().find(|(known, ..)| known == name) {
                Some((_, place, size)) => {
                    let (place, size) = (*place, *size);
                    let found = self.known(expr, 1, place, None);
                    Estimate { size: found.size.or(size), ..found }
                }
                None => match self.environment.place(name) {
                    Some(place) => self.known(expr, 1, Some(place), None),
                    None => self.known(expr, 1, None, self.of_name()),
                },
            },
            Kind::Select { operand, field, access } => {
                let operand = self.expr(operand);
                match access {
                    Access::Presence => self.known(expr, operand.cost, None, Some(ONE)),
                    Access::Optional => self.known(expr, operand.cost.saturating_add(1), None, None),
                    Access::Value => {
                        let own = u64::from(matches!(operand.sort, Sort::Map | Sort::Object));
                        let place = operand.place.and_then(|place| place.field(field));
                        self.known(expr, operand.cost.saturating_add(own), place, None)
                    }
                }
            }
            Kind::Index { operand, index, optional } => {
                let (operand, index) = (self.expr(operand), self.expr(index));
                let cost = operand.cost.saturating_add(index.cost).saturating_add(1);
                if *optional {
                    return self.known(expr, cost, None, None);
                }
                let size = operand.entries.map(|[_, value]| value);
                let place = operand.place.and_then(SchemaPlace::values);
                self.known(expr, cost, place, size)
            }
            Kind::And(left, right) | Kind::Or(left, right) => {
                let cost = self.expr(left).cost.saturating_add(self.expr(right).cost);
                self.known(expr, cost, None, Some(ONE))
            }
            Kind::Conditional(parts) => {
                let [condition, then, otherwise] = parts.as_ref();
                let condition = self.expr(condition);
                let (then, otherwise) = (self.expr(then), self.expr(otherwise));
                let cost = condition.cost.saturating_add(then.cost.max(otherwise.cost));
                let entries = match (then.entries, otherwise.entries) {
                    (Some([k, v]), Some([l, w])) => Some([k.or(l), v.or(w)]),
                    _ => None,
                };
                let found = self.known(expr, cost, None, Some(then.size().or(otherwise.size())));
                Estimate { entries, ..found }
            }
            Kind::List(items) => {
                let (mut cost, mut of) = (LIST, None);
                for (item, _) in items {
                    let item = self.expr(item);
                    cost = cost.saturating_add(item.cost);
                    of = Some(of.map_or(item.size(), |of: Size| of.or(item.size())));
                }
                let found = self.known(expr, cost, None, Some(Size::exactly(items.len())));
                Estimate { entries: Some([ONE, of.unwrap_or(Size::exactly(0))]), ..found }
            }
            Kind::Map(entries) => {
                let (mut cost, mut of) = (MAP, None);
                for (key, value, _) in entries {
                    let (key, value) = (self.expr(key), self.expr(value));
                    cost = cost.saturating_add(key.cost).saturating_add(value.cost);
                    let [k, v] = of.unwrap_or([key.size(), value.size()]);
                    of = Some([k.or(key.size()), v.or(value.size())]);
                }
                let found = self.known(expr, cost, None, Some(Size::exactly(entries.len())));
                Estimate { entries: Some(of.unwrap_or([Size::exactly(0); 2])), ..found }
            }
            Kind::Message { fields, .. } => {
                let costs = fields.iter().map(|(_, value, _)| self.expr(value).cost);
                let cost = costs.fold(MESSAGE, u64::saturating_add);
                self.known(expr, cost, None, None)
            }
            Kind::Call { function, target, arguments } => {
                self.call(expr, function, target.as_deref(), arguments)
            }
            Kind::Comprehension(of) => self.comprehension(expr, of),
        }
    }

    fn call(
        &mut self,
        expr: &'x Expr,
        function: &str,
        target: Option<&'x Expr>,
        arguments: &'x [Expr],
    ) -> Estimate<'s> {
        let target = target.map(|target| self.expr(target));
        let given: Vec<Estimate<'s>> = arguments.iter().map(|argument| self.expr(argument)).collect();
        let (own, size) = self.own(expr, function, target.as_ref(), &given, arguments);
        let parts = target.iter().chain(&given).map(|part| part.cost);
        let found = self.known(expr, parts.fold(own, u64::saturating_add), None, size);
        match (function, given.as_slice()) {
            ("dyn", [of]) => Estimate { entries: of.entries, size: of.size, ..found },
            ("_+_", [a, b]) => match (a.entries, b.entries) {
                (Some([k, v]), Some([l, w])) => Estimate { entries: Some([k.or(l), v.or(w)]), ..found },
                _ => found,
            },
            _ => found,
        }
    }

    /// What a call itself costs, and the size of what comes out where that is known.
    fn own(
        &self,
        expr: &Expr,
        function: &str,
        target: Option<&Estimate<'s>>,
        given: &[Estimate<'s>],
        arguments: &[Expr],
    ) -> (u64, Option<Size>) {
        let constant = |at: usize| match arguments.get(at).map(|argument| &argument.kind) {
            Some(Kind::Literal(Literal::Int(n))) => Some(u64::try_from(*n).unwrap_or(0)),
            _ => None,
        };
        let made = |factor: f64, size: Size| (scaled(size.most, factor).saturating_add(1 + LIST), Some(size));
        match (function, target, given) {
            ("check", Some(_), _) => (ASKING, None),
            ("isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf", Some(on), _) => match on.sort {
                Sort::Text => (on.size().reading(), None),
                sort => {
                    let reading = if sort == Sort::Texts { self.item(on).reading() } else { 0 };
                    (on.size().most.saturating_mul(reading.saturating_add(1)), None)
                }
            },
            ("url" | "jsonpatch.escapeKey", None, [text]) => (text.size().reading(), Some(text.size())),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(on), _) => {
                (on.size().reading(), Some(on.size()))
            }
            // The text is read, and the new one written; so with `split`.
            ("replace", Some(on), [from, to, ..]) => {
                (scaled(on.size().most, 2.0 * CHARACTER), Some(replaced(on.size(), from.size(), to.size())))
            }
            ("split", Some(on), _) => {
                // Below zero, as many as there are: upstream takes that for the largest number.
                let most = match arguments.get(1).map(|argument| &argument.kind) {
                    Some(Kind::Literal(Literal::Int(n))) => *n as u64,
                    _ => on.size().most,
                };
                (scaled(on.size().most, 2.0 * CHARACTER), Some(Size { least: 0, most }))
            }
            ("join", Some(on), given) => {
                let count = on.size();
                let between =
                    Size { least: count.least.saturating_sub(1), most: count.most.saturating_sub(1) };
                let separators = given.first().map_or(Size::exactly(0), |by| by.size().times(between));
                let size = count.times(self.item(on)).plus(separators);
                (size.reading(), Some(size))
            }
            ("matches", Some(on), [pattern]) => (matching(on.size(), pattern.size()), None),
            ("find" | "findAll", Some(on), [pattern, ..]) => {
                (matching(on.size(), pattern.size()), Some(Size { least: 0, most: on.size().most }))
            }
            ("contains", Some(on), [part]) => {
                (on.size().reading().saturating_mul(part.size().reading()), None)
            }
            ("startsWith" | "endsWith", Some(_), [part]) => (part.size().reading(), None),
            ("format", Some(on), [values]) => (on.size().reading(), Some(on.size().plus(values.size()))),
            ("bytes", None, [text]) if text.sort == Sort::Text => {
                let size = text.size();
                (size.reading(), Some(Size { most: size.most.saturating_mul(4), ..size }))
            }
            ("string", None, [bytes]) if bytes.sort == Sort::Bytes => {
                (bytes.size().reading(), Some(bytes.size()))
            }
            ("strings.quote", None, [text]) => {
                let size = text.size().times(Size { least: 1, most: 2 }).plus(Size::exactly(2));
                (text.size().reading(), Some(size))
            }
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver" | "isSemver",
                None,
                [text, ..],
            ) => (text.size().reading(), None),
            ("ip.isCanonical", None, [text]) => (scaled(text.size().most, 2.0 * CHARACTER), None),
            // Addresses have 16 bytes at most. Two of them are compared: 32 at a tenth each, rounded up to 4. To ask about a
            // network, its own bytes are masked before (2 more) and the lengths of the prefixes compared (1 more).
            ("containsIP" | "containsCIDR", Some(_), [other]) => {
                let parsing = if other.sort == Sort::Text { other.size().reading() } else { 0 };
                (parsing.saturating_add(if function == "containsIP" { 4 } else { 7 }), None)
            }
            ("validate", Some(_), [text]) => (scaled(text.size().reading(), FORMAT as f64 * PATTERN), None),
            ("@in", None, [_, list]) if list.sort != Sort::Map => (list.size().most, None),
            ("sets.contains" | "sets.intersects" | "sets.equivalent", None, [a, b]) => {
                let factor = if function == "sets.equivalent" { 2 } else { 1 };
                (a.size().times(b.size()).most.saturating_mul(factor).saturating_add(1), None)
            }
            // Making a list costs a step, the list, and its items. Comparing two items costs 2, and to find what is distinct or
            // to sort compares each with each (`ext/lists.go`).
            ("slice", Some(on), _) => {
                let end = constant(1).unwrap_or(on.size().most);
                // Upstream goes round below zero, so that what ends before it begins costs too much.
                let size = end.wrapping_sub(constant(0).unwrap_or(0));
                made(1.0, Size { least: size, most: size })
            }
            ("flatten", Some(on), []) => made(1.0, on.size()),
            ("flatten", Some(on), _) => made(constant(0).map_or(u64::MAX as f64, |n| n as f64), on.size()),
            ("lists.range", None, _) => {
                let size = constant(0).unwrap_or(u64::MAX);
                made(1.0, Size { least: size, most: size })
            }
            ("reverse", Some(on), _) => made(1.0, on.size()),
            ("distinct", Some(on), _) => made(2.0, on.size().times(on.size())),
            ("sort", Some(on), _) => made(sorting(on.sort), on.size().times(on.size())),
            ("_+_", None, [a, b]) => {
                let size = a.size().plus(b.size());
                match expr.sort {
                    Sort::Text | Sort::Bytes => (size.reading(), Some(size)),
                    Sort::List | Sort::Texts => (1, Some(size)),
                    _ => (1, None),
                }
            }
            ("_==_" | "_!=_", None, [a, b]) if (a.sort, b.sort) != (Sort::Opaque, Sort::Opaque) => {
                (scaled(a.size().most.min(b.size().most), CHARACTER), None)
            }
            ("_<_" | "_<=_" | "_>_" | "_>=_", None, [a, b]) => {
                let texts = scaled(a.size().most.min(b.size().most), CHARACTER);
                let cost = match (a.sort, b.sort) {
                    (Sort::Text | Sort::Bytes, _) | (_, Sort::Text | Sort::Bytes) => texts,
                    (Sort::Scalar, _) | (_, Sort::Scalar) => 1,
                    _ => texts.max(1),
                };
                (cost, None)
            }
            _ => (1, None),
        }
    }

    /// How long each item of a list is.
    fn item(&self, list: &Estimate<'s>) -> Size {
        let of_place = || list.place.and_then(SchemaPlace::values).and_then(|place| self.sizes.most(place));
        let known = of_place().map(|most| Size { least: 0, most });
        known.or(list.entries.map(|[_, value]| value)).unwrap_or(UNKNOWN)
    }

    fn comprehension(&mut self, expr: &'x Expr, of: &'x Comprehension) -> Estimate<'s> {
        let range = self.expr(&of.range);
        let depth = self.locals.len();
        if matches!(of.does, Does::OptMap | Does::OptFlatMap) {
            // `x.hasValue() ? optional.of(BODY) : optional.none()`, where BODY sees `x.value()` by a name: so `x` is paid for
            // twice, with a step each. A name is bound by a comprehension over an empty list.
            self.locals.push((&of.first, None, None));
            let body = self.expr(&of.body).cost.saturating_add(u64::from(of.does == Does::OptMap));
            self.locals.truncate(depth);
            let held = range.cost.saturating_add(1);
            let cost = held.saturating_mul(2).saturating_add(LIST).saturating_add(body);
            return self.known(expr, cost, None, None);
        }
        let over_map = range.sort == Sort::Map;
        // The items of what has no place, and whose size isn't known, upstream looks for behind nothing, and so finds the schema of
        // `self`, as with names.
        // Istio's `(has(self.addresses) ? self.addresses : []).exists(a, a.contains('/'))` is accepted by it.
        let (key, value) = match range.place {
            Some(place) => (Some(KEYS), place.values()),
            None if range.entries.is_none() => {
                (self.environment.place("self"), self.environment.place("self"))
            }
            None => (Some(KEYS), None),
        };
        let keys = (key.filter(|_| over_map), range.entries.map(|[key, _]| key));
        let values = (value, range.entries.map(|[_, value]| value));
        match &of.second {
            Some(second) => {
                self.locals.push((&of.first, keys.0, keys.1));
                self.locals.push((second, values.0, values.1));
            }
            None => {
                let (place, size) = if over_map { keys } else { values };
                self.locals.push((&of.first, place, size));
            }
        }
        let filter = of.filter.as_ref().map_or(0, |filter| self.expr(filter).cost);
        let body = self.expr(&of.body);
        self.locals.truncate(depth);
        let count = range.size();
        // What there is at first, what each item costs beside the body, and what comes at the end: the steps of what the
        // macro stands for (cel-go's `parser/macro.go` and `ext/comprehensions.go`). A name costs 1, and so does a call; each
        // loop ends with the name of its result.
        let (first, each, last) = match of.does {
            // Goes on while `@not_strictly_false(result)`: 2; `result && BODY`: 1.
            Does::All => (0, 3, 1),
            // Goes on while `@not_strictly_false(!result)`: 3; `result || BODY`: 1.
            Does::Exists => (0, 4, 1),
            // `BODY ? count + 1 : count`: 2; in the end `count == 1`: 2.
            Does::ExistsOne => (0, 2, 2),
            // `BODY ? result + [item] : result`: two names, a call and a list.
            Does::Filter => (LIST, 13, 1),
            // `result + [BODY]`: a name, a call and a list.
            Does::Map | Does::SortBy => (LIST, 12, 1),
            // `@mapInsert(result, key, BODY)`: two names and a call.
            Does::TransformMap => (MAP, 3, 1),
            // `@mapInsert(result, BODY)`: a name and a call. The optional ones have left above.
            Does::TransformMapEntry | Does::OptMap | Does::OptFlatMap => (MAP, 2, 1),
        };
        let step = filter.saturating_add(body.cost).saturating_add(each);
        let mut cost =
            range.cost.saturating_add(first + last).saturating_add(count.most.saturating_mul(step));
        if of.does == Does::SortBy {
            // The keys are made as by `map`; then the items are sorted as by `sort`, by them.
            let factor = if matches!(body.sort, Sort::Text | Sort::Bytes) { 2.0 + CHARACTER } else { 2.0 };
            let sorting = scaled(count.times(count).most, factor);
            cost = cost.saturating_add(sorting).saturating_add(1 + LIST + LIST + 2);
        }
        let is_one = matches!(of.does, Does::All | Does::Exists | Does::ExistsOne);
        let found = self.known(expr, cost, None, Some(if is_one { ONE } else { count }));
        let entries = match of.does {
            Does::Map => body.size.map(|size| [ONE, size]),
            Does::Filter | Does::SortBy if !over_map => Some([ONE, self.item(&range)]),
            _ => None,
        };
        Estimate { entries, ..found }
    }
}

/// What comparing a pair of items costs (`estimateListSortCost` of cel-go's `ext/lists.go`); texts are also read.
fn sorting(list: Sort) -> f64 {
    if list == Sort::Texts { 2.0 + CHARACTER } else { 2.0 }
}

/// What it costs to hold a text against a pattern. The text counts as one character longer, because an expensive pattern
/// costs something with an empty text too.
fn matching(text: Size, pattern: Size) -> u64 {
    text.plus(ONE).reading().saturating_mul(scaled(pattern.most, PATTERN))
}

/// How long a text is in which something is replaced. What is replaced may be nothing, which stands before and behind each
/// character.
fn replaced(text: Size, from: Size, to: Size) -> Size {
    let most = if from.least == 0 {
        text.most.saturating_add(1).saturating_mul(to.most).saturating_add(text.most)
    } else if to.most <= from.least {
        text.most
    } else {
        text.most.div_ceil(from.least).saturating_mul(to.most)
    };
    let least = if from.most == 0 {
        text.least.saturating_add(1).saturating_mul(to.least).saturating_add(text.least)
    } else if from.most <= to.least {
        text.least
    } else {
        text.least.div_ceil(from.most).saturating_mul(to.least)
    };
    Size { least, most }
}

fn of_literal(literal: &Literal) -> Size {
    match literal {
        Literal::String(text) => Size::exactly(text.chars().count()),
        Literal::Bytes(bytes) => Size::exactly(bytes.len()),
        _ => ONE,
    }
}

#[cfg(test)]
#[path = "estimate_tests.rs"]
mod tests;
