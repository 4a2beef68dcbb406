//! YAML 1.1 as Kubernetes reads it.
//!
//! The API server and `kubectl` read YAML by way of `sigs.k8s.io/yaml`, over go-yaml v2: `0755` is a number in octal, `yes`
//! and `on` are true, a date is a text, and what `<<` brings replaces what stands before it. The events come from a
//! parser that bounds nesting; the values are made here, and paid for before they are.

mod read;
mod scalar;
mod write;

pub use read::{Document, YamlError, documents, from_yaml, yaml_and_duplicates};
pub use write::to_yaml;
