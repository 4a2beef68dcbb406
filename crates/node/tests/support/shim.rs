//! The shim of the tests' pods.

use std::process::ExitCode;

fn main() -> ExitCode {
    node::run_shim().unwrap_or(ExitCode::FAILURE)
}
