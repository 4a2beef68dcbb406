//! The agent's side of the shims: the runtimes whose containers are made and held by their pod's shim.

mod launch;
mod link;
mod runtime;
mod session;
mod usage;

pub(crate) use runtime::{ShimRuntime, end_strays};
