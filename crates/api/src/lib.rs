//! What a Kubernetes object is, without I/O: kinds and schemas, defaults, validation, patch, selectors,
//! tables, names.

mod object;
mod status;

pub use object::Object;
pub use status::{Cause, Details, Status};
