//! `apiextensions.k8s.io`.

mod definition;
mod fresh;
mod names;
mod structural;
mod versions;

pub(crate) use definition::CustomResourceDefinition;
