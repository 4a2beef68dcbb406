//! CEL, the Common Expression Language, with Kubernetes' environment: rules of custom resources, admission
//! policies and conditions are written in it.
//!
//! An expression is [compiled](Program::compile) once, against the types of what it may use, and
//! [evaluated](Program::evaluate) with values and a [`Budget`]: no expression does more than it may, however
//! it is written and whatever it is given. Follows `cel-spec`, cel-go and `k8s.io/apiserver/pkg/cel`.
//!
//! ```
//! use cel::{Budget, Environment, Error, Program, Sizes, Type, Value};
//! use serde_json::json;
//!
//! let schema = json!({"type": "object", "properties": {
//!     "replicas": {"type": "integer"},
//!     "memory": {"type": "string", "maxLength": 20},
//! }});
//! let environment = Environment::default().with_schema("self", Type::of_schema(&schema), &schema);
//!
//! // What can't work is found before it runs, and what may cost too much too.
//! let rule = "self.replicas <= 3 || quantity(self.memory).isLessThan(quantity('1Gi'))";
//! let (program, result, most) = Program::compile_with_cost(&environment, rule, &Sizes::default())?;
//! assert_eq!((result.to_string().as_str(), most), ("bool", 15));
//! assert!(Program::compile(&environment, "self.replicas == 'three'").is_err());
//!
//! // Values are borrowed from the object. Several expressions may share a budget.
//! let object = json!({"replicas": 5, "memory": "512Mi"});
//! let variables = [("self", Value::of_json(&object, Some(&schema)))];
//! let mut budget = Budget::default();
//! assert!(matches!(program.evaluate(&variables, &mut budget), Ok(Value::Bool(true))));
//! assert!(matches!(program.evaluate(&variables, &mut Budget::new(5)), Err(Error::TooExpensive)));
//! # Ok::<(), cel::CompileError>(())
//! ```

mod ast;
mod budget;
mod check;
mod compare;
mod error;
mod estimate;
mod eval;
mod fold;
mod functions;
mod lexer;
pub mod names;
mod operators;
mod parser;
mod printing;
mod program;
mod quantity;
pub mod re2;
mod relations;
mod signatures;
mod sizes;
mod time;
mod types;
mod value;

#[cfg(test)]
mod tests;

pub use budget::{Budget, MOST_OF_ALL, MOST_OF_ONE};
pub use check::Environment;
pub use error::{CompileError, Error, Stage};
pub use eval::Variables;
pub use functions::{Amount, Format, Url};
pub use program::Program;
pub use quantity::{Quantity, QuantityError};
pub use sizes::Sizes;
pub use time::Moment;
pub use types::Type;
pub use value::{External, Key, List, Map, Text, Value};
