//! Admission policies, and the conditions of webhooks: their expressions compiled, and what comes out of them
//! for a request.
//!
//! Follows `pkg/admission/plugin/policy` and `pkg/admission/plugin/cel` of apiserver.

mod compile;
mod environment;
mod evaluate;
mod type_check;

#[cfg(test)]
mod tests;

use cel::Program;
pub use compile::compile_conditions;
pub use evaluate::{AuthorizerValues, Inputs, Ruling, Scope, conditions_hold};
pub use type_check::type_check;

/// A condition that a request must meet before anything else is asked.
#[derive(Debug)]
pub struct Condition {
    /// Its name.
    pub name: String,
    program: Program,
}

/// The compiled expressions of a `ValidatingAdmissionPolicy` or a `MutatingAdmissionPolicy`.
#[derive(Debug, Default)]
pub struct Policy {
    conditions: Vec<Condition>,
    variables: Vec<(String, Program)>,
    validations: Vec<Validation>,
    audits: Vec<(String, Program)>,
    mutations: Vec<Mutation>,
    /// Whether its expressions use parameters.
    pub has_params: bool,
}

#[derive(Debug)]
struct Validation {
    program: Program,
    text: String,
    message: String,
    message_program: Option<Program>,
    reason: String,
}

/// One change that a policy makes.
#[derive(Debug)]
pub struct Mutation {
    program: Program,
    /// Whether it makes JSON patches; otherwise it makes what is applied.
    pub is_json_patch: bool,
}
