//! CEL, the Common Expression Language, with Kubernetes' environment: rules of custom resources, admission
//! policies and conditions are written in it.
//!
//! An expression is [compiled](Program::compile) once, against the types of what it may use, and
//! [evaluated](Program::evaluate) with values and a [`Budget`]: no expression does more than it may, however
//! it is written and whatever it is given. Follows `cel-spec`, cel-go and `k8s.io/apiserver/pkg/cel`.

mod ast;
mod budget;
mod check;
mod compare;
mod error;
mod estimate;
mod eval;
mod functions;
mod lexer;
pub mod names;
mod operators;
mod parser;
mod program;
mod quantity;
mod signatures;
mod sizes;
mod time;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use budget::{Budget, MOST_OF_ALL, MOST_OF_ONE};
pub use check::Environment;
pub use error::{CompileError, Error};
pub use eval::Variables;
pub use functions::{Format, Semver, Url};
pub use program::Program;
pub use quantity::{Quantity, QuantityError};
pub use sizes::Sizes;
pub use types::Type;
pub use value::{Host, Key, List, Map, Text, Value};
