//! `apiextensions.k8s.io`.

mod definition;
mod fresh;
mod general;
mod names;
mod structural;
mod versions;
mod warnings;

pub(crate) use definition::CustomResourceDefinition;
