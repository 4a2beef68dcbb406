//! The shim of the tests' pods.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::run_shim().or_else(node::run_cni_plugin).unwrap_or(ExitCode::FAILURE)
}
