//! A highly available Kubernetes in one program.
fn main() {}
