//! `apiextensions.k8s.io`.

mod definition;
mod fresh;
mod general;
mod names;
mod same;
mod structural;
mod versions;
mod warnings;

pub(crate) use definition::CustomResourceDefinition;
