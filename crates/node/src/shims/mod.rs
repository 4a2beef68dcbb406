//! The agent's side of the shims: the runtimes whose containers are made and held by their pod's shim.

mod bond;
mod former;
mod launch;
mod link;
mod runtime;
mod sandboxes;
mod session;
#[cfg(test)]
mod tests;
mod usage;

pub(crate) use bond::end_of_bound;
pub(crate) use former::{end_all, end_strays};
pub(crate) use runtime::ShimRuntime;
