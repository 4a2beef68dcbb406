//! A compiled expression.

use crate::ast::{Expr, Kind, Literal};
use crate::budget::{Budget, MOST_OF_ONE};
use crate::check::{Environment, check};
use crate::error::{CompileError, Error, Fault};
use crate::estimate::estimate;
use crate::eval::{Evaluator, Variables};
use crate::fold::planning_fault;
use crate::functions;
use crate::parser::parse;
use crate::sizes::Sizes;
use crate::time;
use crate::types::Type;
use crate::value::Value;

/// A compiled expression.
#[derive(Debug, Clone)]
pub struct Program {
    root: Expr,
}

impl Program {
    /// The program of `text`, and the type of its result.
    ///
    /// # Errors
    /// If it isn't well formed, uses what `environment` hasn't, or uses it wrongly.
    pub fn compile<'s>(environment: &Environment<'s>, text: &str) -> Result<(Self, Type<'s>), CompileError> {
        let mut root = parse(text).map_err(|fault| CompileError::new(text, vec![fault]))?;
        let result = check(environment, &mut root).map_err(|faults| CompileError::new(text, faults))?;
        let mut faults = Vec::new();
        check_literals(&root, &mut faults);
        if !faults.is_empty() {
            return Err(CompileError::new(text, faults));
        }
        match planning_fault(&root) {
            Some(why) => Err(CompileError::planning(why)),
            None => Ok((Program { root }, result)),
        }
    }

    /// The program of `text`, the type of its result, and the most that it may cost, by the schemas of its variables.
    ///
    /// # Errors
    /// As of [`Program::compile`].
    pub fn compile_with_cost<'s>(
        environment: &Environment<'s>,
        text: &str,
        sizes: &Sizes<'s>,
    ) -> Result<(Self, Type<'s>, u64), CompileError> {
        let (program, result) = Program::compile(environment, text)?;
        let cost = estimate(environment, sizes, &program.root);
        Ok((program, result, cost))
    }

    /// The result for these variables.
    ///
    /// # Errors
    /// If it fails, or costs more than one expression may, or than is left.
    pub fn evaluate<'a>(
        &'a self,
        variables: &dyn Variables<'a>,
        budget: &mut Budget,
    ) -> Result<Value<'a>, Error> {
        let most = budget.left().min(MOST_OF_ONE);
        let mut own = Budget::new(most);
        let result = Evaluator { variables, locals: Vec::new(), budget: &mut own }.eval(&self.root);
        budget.charge(most - own.left())?;
        result
    }

    /// Whether the expression uses a variable of that name, or one qualified by it.
    pub fn uses(&self, name: &str) -> bool {
        let mut found = false;
        walk(&self.root, &mut |expr| {
            if let Kind::Ident(known) = &expr.kind {
                found |= known == name || known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
            }
        });
        found
    }
}

/// What stands in the text and can never be right: patterns, moments and spans of time.
fn check_literals(root: &Expr, faults: &mut Vec<Fault>) {
    walk(root, &mut |expr| {
        let Kind::Call { function, arguments, .. } = &expr.kind else { return };
        let Some(Expr { at, kind: Kind::Literal(Literal::String(text)), .. }) = arguments.last() else {
            return;
        };
        let fault = match function.as_str() {
            "matches" => {
                functions::is_pattern(text).err().map(|why| format!("invalid matches argument: {why}"))
            }
            "duration" if arguments.len() == 1 && time::parse_duration(text).is_none() => {
                Some("invalid duration argument".to_owned())
            }
            "timestamp" if arguments.len() == 1 && time::parse_timestamp(text).is_none() => {
                Some("invalid timestamp argument".to_owned())
            }
            _ => None,
        };
        faults.extend(fault.map(|message| Fault { at: *at, message }));
    });
}

fn walk(expr: &Expr, visit: &mut dyn FnMut(&Expr)) {
    visit(expr);
    match &expr.kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select { operand, .. } => walk(operand, visit),
        Kind::Index { operand, index, .. } => {
            walk(operand, visit);
            walk(index, visit);
        }
        Kind::Call { target, arguments, .. } => {
            target.iter().for_each(|target| walk(target, visit));
            arguments.iter().for_each(|argument| walk(argument, visit));
        }
        Kind::And(left, right) | Kind::Or(left, right) => {
            walk(left, visit);
            walk(right, visit);
        }
        Kind::Conditional(parts) => parts.iter().for_each(|part| walk(part, visit)),
        Kind::List(items) => items.iter().for_each(|(item, _)| walk(item, visit)),
        Kind::Map(entries) => entries.iter().for_each(|(key, value, _)| {
            walk(key, visit);
            walk(value, visit);
        }),
        Kind::Message { fields, .. } => fields.iter().for_each(|(_, value, _)| walk(value, visit)),
        Kind::Comprehension(of) => {
            walk(&of.range, visit);
            of.filter.iter().for_each(|filter| walk(filter, visit));
            walk(&of.body, visit);
        }
    }
}
