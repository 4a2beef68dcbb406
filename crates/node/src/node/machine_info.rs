//! What the machine is, as the system tells it.

use std::fs;
use std::path::Path;

use crate::eviction::Pressures;
use crate::images::Present;
use crate::stats::disk::FileSystem;

/// Facts about the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MachineInfo {
    /// Processors.
    pub cpus: u64,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// The disk that pods live on, in KiB.
    pub disk_kib: u64,
    /// `amd64`, `arm64`, ...
    pub architecture: String,
    /// The distribution.
    pub os_image: String,
    /// The kernel's release.
    pub kernel: String,
    /// The machine's id.
    pub machine_id: String,
    /// The id of this boot.
    pub boot_id: String,
    /// What it is short of.
    pub pressures: Pressures,
    /// Whether it is shutting down.
    pub is_closing: bool,
    /// Images of containers that are on its disk.
    pub images: Vec<Present>,
}

/// Reads the facts; what can't be read stays empty.
pub(crate) fn read_machine(data: &Path) -> MachineInfo {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let line = |path: &str| text(path).trim().to_owned();
    let memory = text("/proc/meminfo");
    let kib = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    };
    let release = text("/etc/os-release");
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    MachineInfo {
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        memory_kib: kib("MemTotal"),
        disk_kib: FileSystem::of(data).map_or(0, |disk| disk.capacity / 1024),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .to_owned(),
        os_image: name.map_or("Linux", |name| name.trim_matches('"')).to_owned(),
        kernel: line("/proc/sys/kernel/osrelease"),
        machine_id: line("/etc/machine-id"),
        boot_id: line("/proc/sys/kernel/random/boot_id"),
        pressures: Pressures::default(),
        is_closing: false,
        images: Vec::new(),
    }
}
