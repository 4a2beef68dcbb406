//! The profile `RuntimeDefault`: what containerd's allows (`contrib/seccomp/seccomp_default.go`, which is Docker's too), as
//! far as this machine's own processor goes. Programs for another one (32 bits) don't run under it.

use super::super::spec::{Action, Argument, Comparison, Rule, Seccomp};
use crate::container::rights::capability;

/// The error of calls that this system doesn't have.
const ENOSYS: u16 = 38;
/// The bits of clone(2) that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;
/// The address family of virtual machines' sockets, by which one would reach the host from inside.
const AF_VSOCK: u64 = 40;

/// Calls that every container may make.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset",
    "chdir", "chmod", "chown", "clock_adjtime", "clock_getres", "clock_gettime", "clock_nanosleep",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat", "fchmodat2",
    "fchown", "fchownat", "fcntl", "fdatasync", "fgetxattr", "flistxattr", "flock", "fork", "fremovexattr",
    "fsetxattr", "fstat", "fstatfs", "fsync", "ftruncate", "futex", "futex_requeue", "futex_wait",
    "futex_waitv", "futex_wake", "futimesat", "get_robust_list", "get_thread_area", "getcpu", "getcwd",
    "getdents", "getdents64", "getegid", "geteuid", "getgid", "getgroups", "getitimer", "getpeername",
    "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid",
    "getrlimit", "getrusage", "getsid", "getsockname", "getsockopt", "gettid", "gettimeofday", "getuid",
    "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1", "inotify_rm_watch",
    "io_cancel", "io_destroy", "io_getevents", "io_pgetevents", "io_setup", "io_submit", "ioctl", "ioprio_get",
    "ioprio_set", "kill", "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self",
    "lchown", "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat",
    "llistxattr", "lremovexattr", "lseek", "lsetxattr", "lstat", "madvise", "map_shadow_stack",
    "membarrier", "memfd_create", "memfd_secret", "mincore", "mkdir", "mkdirat", "mknod", "mknodat",
    "mlock", "mlock2", "mlockall", "mmap", "mprotect", "mq_getsetattr", "mq_notify", "mq_open",
    "mq_timedreceive", "mq_timedsend", "mq_unlink", "mremap", "mseal", "msgctl", "msgget", "msgrcv",
    "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at", "nanosleep", "newfstatat",
    "open", "openat", "openat2", "pause", "pidfd_open", "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc",
    "pkey_free", "pkey_mprotect", "poll", "ppoll", "prctl", "pread64", "preadv", "preadv2", "prlimit64",
    "process_mrelease", "process_vm_readv", "process_vm_writev", "pselect6", "ptrace", "pwrite64",
    "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat", "readv", "recvfrom", "recvmmsg",
    "recvmsg", "remap_file_pages", "removexattr", "removexattrat", "rename", "renameat", "renameat2",
    "restart_syscall", "rmdir", "rseq", "rt_sigaction", "rt_sigpending", "rt_sigprocmask",
    "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend", "rt_sigtimedwait", "rt_tgsigqueueinfo",
    "sched_get_priority_max", "sched_get_priority_min", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_getscheduler", "sched_rr_get_interval", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget",
    "semop", "semtimedop", "sendfile", "sendmmsg", "sendmsg", "sendto", "set_robust_list",
    "set_thread_area", "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "setitimer",
    "setpgid", "setpriority", "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid",
    "setsockopt", "setuid", "setxattr", "setxattrat", "shmat", "shmctl", "shmdt", "shmget", "shutdown",
    "sigaltstack", "signalfd", "signalfd4", "socketpair", "splice", "stat", "statfs", "statmount", "statx",
    "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill", "time",
    "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_settime", "timerfd_create",
    "timerfd_gettime", "timerfd_settime", "times", "tkill", "truncate", "umask", "uname", "unlink",
    "unlinkat", "utime", "utimensat", "utimes", "vfork", "vmsplice", "wait4", "waitid", "write", "writev",
];

/// Calls that come with a capability.
const WITH: &[(&str, &[&str])] = &[
    ("DAC_READ_SEARCH", &["open_by_handle_at"]),
    (
        "SYS_ADMIN",
        &[
            "bpf",
            "clone",
            "clone3",
            "fanotify_init",
            "fsconfig",
            "fsmount",
            "fsopen",
            "fspick",
            "lookup_dcookie",
            "lsm_get_self_attr",
            "lsm_list_modules",
            "lsm_set_self_attr",
            "mount",
            "mount_setattr",
            "move_mount",
            "open_tree",
            "perf_event_open",
            "quotactl",
            "quotactl_fd",
            "setdomainname",
            "sethostname",
            "setns",
            "syslog",
            "umount2",
            "unshare",
        ],
    ),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise"]),
    ("SYS_RAWIO", &["iopl", "ioperm"]),
    ("SYS_TIME", &["settimeofday", "clock_settime"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
    ("SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("SYSLOG", &["syslog"]),
    ("BPF", &["bpf"]),
    ("PERFMON", &["perf_event_open"]),
];

/// The personalities that a program may take on: Linux' own, without randomised addresses or with old system calls' ways.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

fn allow(names: &[&str]) -> Rule {
    // Those that this processor hasn't can't be called.
    let known = names.iter().filter(|name| super::table::number(name).is_some());
    Rule { names: known.map(|name| (*name).to_owned()).collect(), action: Action::Allow, ..Rule::default() }
}

fn allow_if(name: &str, value: u64, value_two: u64, op: Comparison) -> Rule {
    Rule { args: vec![Argument { index: 0, value, value_two, op }], ..allow(&[name]) }
}

/// The profile of a container with these capabilities at most.
pub(crate) fn runtime_default(capabilities: u64) -> Seccomp {
    let has = |name: &str| capability(name).is_some_and(|bit| capabilities & bit != 0);
    let mut rules = vec![allow(ALLOWED), allow_if("socket", AF_VSOCK, 0, Comparison::Ne)];
    let personality = |value: &u64| allow_if("personality", *value, 0, Comparison::Eq);
    rules.extend(PERSONALITIES.iter().map(personality));
    if cfg!(target_arch = "x86_64") {
        rules.push(allow(&["arch_prctl", "modify_ldt"]));
    }
    rules.extend(WITH.iter().filter(|(name, _)| has(name)).map(|(_, calls)| allow(calls)));
    if !has("SYS_ADMIN") {
        rules.push(allow_if("clone", NAMESPACES, 0, Comparison::MaskedEq));
        // Its flags lie in memory, where no filter sees them; told that there is no such call, libraries use the other.
        rules.push(Rule { action: Action::Errno, errno_ret: Some(ENOSYS), ..allow(&["clone3"]) });
    }
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: Some(1),
        architectures: vec![super::ARCHITECTURE.into()],
        syscalls: rules,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: &Seccomp) -> Vec<&str> {
        let allowed = profile.syscalls.iter().filter(|rule| rule.action == Action::Allow);
        allowed.flat_map(|rule| rule.names.iter().map(String::as_str)).collect()
    }

    #[test]
    fn what_leads_out_of_a_container_comes_with_its_capability() {
        let bare = runtime_default(0);
        for name in
            ["mount", "unshare", "setns", "bpf", "init_module", "reboot", "keyctl", "kexec_load", "chroot"]
        {
            assert!(!names(&bare).contains(&name), "{name}");
        }
        let admin = runtime_default(capability("SYS_ADMIN").unwrap());
        assert!(["mount", "unshare", "clone3"].iter().all(|name| names(&admin).contains(name)));
        assert!(!names(&admin).contains(&"init_module"));
        for name in ["read", "openat2", "close_range", "rseq", "futex_waitv", "io_pgetevents"] {
            assert!(names(&bare).contains(&name), "{name}");
        }
    }

    #[test]
    fn every_name_is_a_call_of_this_processor() {
        if cfg!(target_arch = "x86_64") {
            let with = WITH.iter().flat_map(|(_, calls)| calls.iter());
            let unknown =
                ALLOWED.iter().chain(with).filter(|name| super::super::table::number(name).is_none());
            assert_eq!(unknown.collect::<Vec<_>>(), Vec::<&&str>::new());
        }
    }
}
