//! Which objects a list, a watch, a service or a controller means.

mod field;
mod label;

pub use field::FieldSelector;
pub use label::LabelSelector;
