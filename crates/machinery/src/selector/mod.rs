//! Which objects a list, a watch, a service or a controller means.

mod field;
mod label;
mod part;

pub use field::FieldSelector;
pub use label::LabelSelector;
pub use part::Selectable;
