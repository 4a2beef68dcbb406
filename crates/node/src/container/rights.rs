//! What a process may do beyond its user's rights: capabilities(7), and PR_SET_NO_NEW_PRIVS. Names and bits, and
//! the system calls that take rights away between fork and exec.

use std::io;

/// The capabilities of linux/capability.h by their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit of a capability as a pod names it (`NET_ADMIN`, also with `CAP_`), if there is one of that name.
pub(crate) fn capability(name: &str) -> Option<u64> {
    let name = name.to_ascii_uppercase();
    let name = name.strip_prefix("CAP_").unwrap_or(&name);
    NAMES.iter().position(|known| *known == name).map(|number| 1 << number)
}

/// The names of capabilities, as a bundle has them (`CAP_NET_ADMIN`).
pub(crate) fn names(bits: u64) -> Vec<String> {
    let known = NAMES.iter().enumerate().filter(|(number, _)| bits & (1 << number) != 0);
    known.map(|(_, name)| format!("CAP_{name}")).collect()
}

/// The bits of these names; those that aren't known have none.
pub(crate) fn bits<'a>(names: impl IntoIterator<Item = &'a String>) -> u64 {
    names.into_iter().filter_map(|name| capability(name)).fold(0, |all, bit| all | bit)
}

/// Version 3 of the kernel's structs: two halves of each set.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Half {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<libc::c_long> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers alone.
    check(unsafe { libc::prctl(option, argument, zero, zero, zero) }.into())
}

/// Bounds what this process, and all that it executes, can ever have. Only system calls.
pub(crate) fn bound(keep: u64) -> io::Result<()> {
    for number in 0..u64::BITS {
        match prctl(libc::PR_CAPBSET_READ, number.into()) {
            Ok(1) if keep & (1 << number) == 0 => drop(prctl(libc::PR_CAPBSET_DROP, number.into())?),
            Ok(_) => {}
            // The kernel knows no more of them.
            Err(_) => break,
        }
    }
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong).map(drop)
}

/// Takes away all that this process has beyond `keep`, and lets it hand nothing on. Only system calls.
pub(crate) fn keep(keep: u64) -> io::Result<()> {
    let header = Header { version: VERSION, pid: 0 };
    let mut halves = [Half::default(); 2];
    // SAFETY: both structs are the kernel's of this version, and live through the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, halves.as_mut_ptr()) })?;
    for (half, place) in halves.iter_mut().zip([0, 32]) {
        let keep = u32::try_from((keep >> place) & u64::from(u32::MAX)).unwrap_or(0);
        *half = Half { effective: half.effective & keep, permitted: half.permitted & keep, inheritable: 0 };
    }
    // SAFETY: see above.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, halves.as_ptr()) }).map(drop)
}

/// From now on no program gives this process more rights than it has. Only system calls.
pub(crate) fn no_new() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).map(drop)
}
