//! What the expressions of a policy come to for a request.

use std::cell::RefCell;
use std::sync::Arc;

use cel::{Budget, Error, External, Variables};
use serde_json::Value;

use super::environment::{namespace, request};
use super::{Condition, Mutation, Policy};

/// The longest message that an expression may make, as upstream.
const LONGEST_MESSAGE: usize = 5 * 1024;

/// What a request gives to expressions.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The object as it shall be; nothing for what is deleted.
    pub object: Option<&'a Value>,
    /// The object as it was.
    pub old_object: Option<&'a Value>,
    /// The `AdmissionRequest`, without the objects.
    pub request: &'a Value,
    /// The object's namespace, if it lies in one.
    pub namespace: Option<&'a Value>,
    /// The policy's parameters.
    pub params: Option<&'a Value>,
    /// Whom to ask what the user may do, and the same about what is asked for here.
    pub authorizer: Option<&'a AuthorizerValues>,
}

/// What answers whether the user may do something.
pub struct AuthorizerValues {
    /// Asked about anything: `authorizer`.
    pub authorizer: Arc<dyn External>,
    /// Asked about what is asked for here: `authorizer.requestResource`.
    pub request_resource: Arc<dyn External>,
}

impl<'a> Variables<'a> for Inputs<'a> {
    fn get(&self, name: &str, _: &mut Budget) -> Option<Result<cel::Value<'a>, Error>> {
        let json = |value: Option<&'a Value>, schema| match value {
            Some(value) => cel::Value::of_json(value, schema),
            None => cel::Value::Null,
        };
        Some(Ok(match name {
            "object" => json(self.object, None),
            "oldObject" => json(self.old_object, None),
            "request" => json(Some(self.request), Some(request())),
            "namespaceObject" => json(self.namespace, Some(namespace())),
            "params" => json(self.params, None),
            "authorizer" => cel::Value::External(self.authorizer?.authorizer.clone()),
            "authorizer.requestResource" => cel::Value::External(self.authorizer?.request_resource.clone()),
            _ => return None,
        }))
    }
}

/// Whether all conditions hold. One that doesn't hold decides, whatever fails beside it.
///
/// # Errors
/// If one can't be evaluated: what went wrong, and with which.
pub fn conditions_hold(
    conditions: &[Condition],
    inputs: &Inputs<'_>,
    budget: &mut Budget,
) -> Result<bool, String> {
    let mut failed = None;
    for condition in conditions {
        match condition.program.evaluate(inputs, budget) {
            Ok(cel::Value::Bool(true)) => {}
            Ok(cel::Value::Bool(false)) => return Ok(false),
            Ok(_) => {
                failed.get_or_insert(format!("match condition {:?} is no bool", condition.name));
            }
            Err(error) => {
                failed.get_or_insert(format!(
                    "match condition {:?} resulted in error: {error}",
                    condition.name
                ));
            }
        }
    }
    failed.map_or(Ok(true), Err)
}

/// A policy with what a request gives to it. Variables are made when they are first used.
pub struct Scope<'a> {
    policy: &'a Policy,
    inputs: Inputs<'a>,
    made: RefCell<Vec<Option<Result<cel::Value<'a>, Error>>>>,
}

impl<'a> Variables<'a> for Scope<'a> {
    fn get(&self, name: &str, budget: &mut Budget) -> Option<Result<cel::Value<'a>, Error>> {
        let Some(variable) = name.strip_prefix("variables.") else { return self.inputs.get(name, budget) };
        let at = self.policy.variables.iter().position(|(known, _)| known == variable)?;
        if let Some(made) = self.made.borrow().get(at).cloned().flatten() {
            return Some(made);
        }
        let value = self.policy.variables[at].1.evaluate(self, budget);
        if let Some(place) = self.made.borrow_mut().get_mut(at) {
            *place = Some(value.clone());
        }
        Some(value)
    }
}

/// What a validation says to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Nothing against it.
    Admit,
    /// It may not be.
    Deny {
        /// Why, for people.
        message: String,
        /// Why, for programs: empty for `Invalid`.
        reason: String,
    },
    /// The expression failed: the policy's failure policy decides.
    Failed(String),
}

impl<'a> Scope<'a> {
    /// The policy for a request.
    pub fn new(policy: &'a Policy, inputs: Inputs<'a>) -> Self {
        Scope { policy, inputs, made: RefCell::new(vec![None; policy.variables.len()]) }
    }

    /// Whether the policy's conditions hold.
    ///
    /// # Errors
    /// As of [`conditions_hold`].
    pub fn conditions_hold(&self, budget: &mut Budget) -> Result<bool, String> {
        conditions_hold(&self.policy.conditions, &self.inputs, budget)
    }

    /// What each validation says, in their order.
    pub fn validate(&self, budget: &mut Budget) -> Vec<Ruling> {
        let verdict = |validation: &'a super::Validation, budget: &mut Budget| match validation
            .program
            .evaluate(self, budget)
        {
            Ok(cel::Value::Bool(true)) => Ruling::Admit,
            Ok(cel::Value::Bool(false)) => {
                let own =
                    validation.message_program.as_ref().and_then(|program| self.message(program, budget));
                let message = own.unwrap_or_else(|| match validation.message.as_str() {
                    "" => format!("failed expression: {}", validation.text),
                    message => message.to_owned(),
                });
                Ruling::Deny { message, reason: validation.reason.clone() }
            }
            Ok(_) => Ruling::Failed(format!("expression '{}' resulted in no bool", validation.text)),
            Err(error) => {
                Ruling::Failed(format!("expression '{}' resulted in error: {error}", validation.text))
            }
        };
        self.policy.validations.iter().map(|validation| verdict(validation, budget)).collect()
    }

    fn message(&self, program: &'a cel::Program, budget: &mut Budget) -> Option<String> {
        let value = program.evaluate(self, budget).ok()?;
        let text = value.as_str()?.trim();
        (!text.is_empty() && text.len() <= LONGEST_MESSAGE && !text.contains('\n')).then(|| text.to_owned())
    }

    /// What the policy has to say to auditors; what fails is left out.
    pub fn audit(&self, budget: &mut Budget) -> Vec<(String, String)> {
        let audits = self.policy.audits.iter().filter_map(|(key, program)| {
            let value = program.evaluate(self, budget).ok()?;
            Some((key.clone(), value.as_str()?.to_owned()))
        });
        audits.collect()
    }

    /// What a mutation makes: JSON patches, or what is applied.
    ///
    /// # Errors
    /// If it fails.
    pub fn mutate(&self, mutation: &'a Mutation, budget: &mut Budget) -> Result<Value, Error> {
        mutation.program.evaluate(self, budget)?.to_json()
    }
}

impl Policy {
    /// What a mutating policy changes, in its order.
    pub fn mutations(&self) -> &[Mutation] {
        &self.mutations
    }
}
