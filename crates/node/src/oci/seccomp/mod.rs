//! Filters of system calls: the default profile, and what the kernel is given of a profile.

mod filter;
mod profile;
mod table;

pub(crate) use filter::{Filter, compile};
pub(crate) use profile::runtime_default;

/// This machine's processor, as profiles name it.
const ARCHITECTURE: &str =
    if cfg!(target_arch = "aarch64") { "SCMP_ARCH_AARCH64" } else { "SCMP_ARCH_X86_64" };
