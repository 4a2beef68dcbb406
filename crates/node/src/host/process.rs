//! Processes of the host: how the pod's shim makes them, and how their end is asked for. The kernel kills them when the
//! shim ends (PR_SET_PDEATHSIG), however it does.

use std::ffi::CString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use nix::fcntl::OFlag;
use nix::unistd::pipe2;
use serde::{Deserialize, Serialize};

use super::Isolation;
use super::mounts::MountPlan;
use crate::container::{cgroup, let_through, rights};
use crate::runtime::{RunError, Streams};

/// A process to make.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Its whole environment.
    pub env: Vec<(String, String)>,
    /// Its folder.
    pub folder: PathBuf,
    /// Its host name, where that can be given.
    pub hostname: String,
    /// The user to run as.
    pub user: Option<u32>,
    /// The group to run as.
    pub group: Option<u32>,
    /// More groups.
    pub groups: Vec<u32>,
    /// The capabilities that it keeps at most, one bit each; all if none are named.
    pub capabilities: Option<u64>,
    /// Whether neither it nor what it runs ever gets more rights (set-uid files).
    pub no_new_privileges: bool,
    /// Whether its user, rather than the agent, must be allowed to enter its folder.
    pub folder_as_user: bool,
    /// Its mounts.
    pub plan: MountPlan,
    /// The process whose namespaces it joins, instead of having its own.
    pub beside: Option<i32>,
    /// Its input and outputs.
    pub streams: Streams,
    /// What its cgroup is to be given: by the agent, where there are cgroups.
    #[serde(skip)]
    pub cgroup: cgroup::Wanted,
}

/// Without its arguments and its environment: Secrets may be in them.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Command {
    /// Whether a process can be given its words.
    ///
    /// # Errors
    /// Which can't be, without what it says.
    fn check_words(&self) -> Result<(), RunError> {
        let refused = |what: String| {
            RunError::Config(format!("{what} holds a NUL byte, which no process can be given"))
        };
        if let Some(at) = self.argv.iter().position(|word| word.contains('\0')) {
            return Err(refused(format!("argument {at} of its command")));
        }
        let mut variables = self.env.iter();
        match variables.find(|(name, value)| name.contains('\0') || value.contains('\0')) {
            Some((name, _)) => Err(refused(format!("the variable {name:?}"))),
            None => Ok(()),
        }
    }
}

/// What the process-to-be does between fork and exec, in this order. A step that fails is reported by its number.
const STEPS: [&str; 13] = [
    "start a session",
    "join the container's namespaces",
    "make namespaces",
    "map the user within the user namespace",
    "set the host name",
    "mount the volumes",
    "change to the working directory",
    "change user and group",
    "tie the process to its shim",
    "make the terminal the session's",
    "drop capabilities",
    "forbid new privileges",
    "enter its cgroups",
];
/// The step that is one of the plan's in turn, of which the number follows.
const MOUNTS: u8 = 5;

struct Prepared {
    cgroups: Vec<File>,
    parent: libc::pid_t,
    flags: libc::c_int,
    beside: Vec<(File, libc::c_int)>,
    root: Option<File>,
    maps: Vec<(CString, Vec<u8>)>,
    hostname: Vec<u8>,
    plan: MountPlan,
    folder: CString,
    folder_as_user: bool,
    groups: Option<Vec<libc::gid_t>>,
    group: Option<libc::gid_t>,
    user: Option<libc::uid_t>,
    capabilities: Option<u64>,
    no_new_privileges: bool,
    terminal: bool,
    failed: File,
}

/// Makes a process with these three streams, in the cgroups that it is to have, and answers its id, which is also that of
/// its session and process group.
///
/// # Errors
/// What of it is wrong, or what the system refused.
pub(crate) fn spawn(
    command: &Command,
    isolation: Isolation,
    streams: [OwnedFd; 3],
    cgroups: &[OwnedFd],
) -> Result<i32, RunError> {
    let system = |what: &str| {
        let what = what.to_owned();
        move |why: io::Error| RunError::System(format!("{what}: {why}"))
    };
    let no_command =
        "the container has no command, and pods of RuntimeClass host run no image: give it a command";
    let (program, args) = command.argv.split_first().ok_or_else(|| RunError::Config(no_command.into()))?;
    command.check_words()?;
    let folder = CString::new(command.folder.as_os_str().as_bytes()).map_err(|_| {
        let folder = command.folder.display();
        RunError::Config(format!("its folder {folder} holds a NUL byte, which no process can be given"))
    })?;
    let (told, failed) = pipe2(OFlag::O_CLOEXEC).map_err(|e| system("make a pipe")(e.into()))?;
    let (mut told, failed) = (File::from(told), File::from(failed));
    let mut prepared = prepare(command, isolation, folder, failed).map_err(system(STEPS[1]))?;
    prepared.cgroups = cgroup::entrances(cgroups).map_err(system(STEPS[12]))?;

    let mut made = std::process::Command::new(program);
    made.args(args).env_clear().envs(command.env.iter().map(|(k, v)| (k, v)));
    let [stdin, stdout, stderr] = streams;
    made.stdin(stdin).stdout(stdout).stderr(stderr);
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec, `become_container` makes system calls on memory that was prepared
    // before, and allocates nothing.
    unsafe {
        made.pre_exec(move || {
            become_container(&prepared).map_err(|Failed { step, mount, error }| {
                let [low, high] = mount.to_le_bytes();
                let _ = (&prepared.failed).write(&[step, low, high]);
                error
            })
        });
    }
    let result = made.spawn();
    // With it this process' copy of the pipe's writing end: else reading below would never end.
    drop(made);
    match result {
        Ok(child) => i32::try_from(child.id()).map_err(|why| system("start it")(io::Error::other(why))),
        Err(why) => {
            let mut said = [0; 3];
            let what = match told.read_exact(&mut said) {
                Ok(()) => {
                    let [step, low, high] = said;
                    let mount = command.plan.steps.get(usize::from(u16::from_le_bytes([low, high])));
                    match mount.filter(|_| step == MOUNTS) {
                        Some((_, about)) => about.to_string(),
                        None => STEPS.get(usize::from(step)).map_or("start it", |s| s).to_owned(),
                    }
                }
                Err(_) => format!("exec {program:?}"),
            };
            Err(RunError::System(format!("{what}: {why}")))
        }
    }
}

fn prepare(command: &Command, isolation: Isolation, folder: CString, failed: File) -> io::Result<Prepared> {
    let mut prepared = Prepared {
        cgroups: Vec::new(),
        parent: nix::unistd::getpid().as_raw(),
        flags: isolation.flags(),
        beside: Vec::new(),
        root: None,
        maps: Vec::new(),
        hostname: command.hostname.clone().into_bytes(),
        plan: command.plan.clone(),
        folder,
        folder_as_user: command.folder_as_user,
        groups: None,
        group: command.group,
        user: command.user,
        capabilities: command.capabilities,
        no_new_privileges: command.no_new_privileges,
        terminal: command.streams == Streams::Terminal,
        failed,
    };
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    if uid.is_root() && isolation != Isolation::UserNamespace {
        // Also where the pod says nothing: the agent's groups are none of its business.
        prepared.groups = Some(command.groups.clone());
        prepared.group = prepared.group.or(Some(0));
    }
    prepared.user = prepared.user.filter(|user| *user != uid.as_raw());
    prepared.group = prepared.group.filter(|group| *group != gid.as_raw() || prepared.user.is_some());
    if isolation == Isolation::None {
        return Ok(prepared);
    }
    if let Some(pid) = command.beside {
        let mut kinds = vec![("uts", libc::CLONE_NEWUTS), ("mnt", libc::CLONE_NEWNS)];
        if isolation == Isolation::UserNamespace {
            // First: joining it gives the rights by which the other two may be joined.
            kinds.insert(0, ("user", libc::CLONE_NEWUSER));
        }
        for (kind, flag) in kinds {
            prepared.beside.push((File::open(format!("/proc/{pid}/ns/{kind}"))?, flag));
        }
        // Where the container could only chroot (see `change_root`), its root is not that of its mount namespace.
        prepared.root = Some(File::open(format!("/proc/{pid}/root"))?);
        prepared.flags = 0;
    } else if isolation == Isolation::UserNamespace {
        // In this order: without rights outside, the kernel takes a map of groups only once `setgroups` is denied
        // (user_namespaces(7)).
        prepared.maps = vec![
            (c"/proc/self/setgroups".to_owned(), b"deny".to_vec()),
            (c"/proc/self/uid_map".to_owned(), format!("{uid} {uid} 1").into_bytes()),
            (c"/proc/self/gid_map".to_owned(), format!("{gid} {gid} 1").into_bytes()),
        ];
    }
    Ok(prepared)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// At which of [`STEPS`] and which step of the plan it ended, and why.
struct Failed {
    step: u8,
    mount: u16,
    error: io::Error,
}

/// Turns the forked child into the container. Only system calls.
fn become_container(to: &Prepared) -> Result<(), Failed> {
    let at = |step: u8| move |error| Failed { step, mount: u16::MAX, error };
    // SAFETY: here and below: system calls on integers, or on strings and buffers that live through them.
    check(unsafe { libc::setsid() }).map_err(at(0))?;
    let_through().map_err(at(0))?;
    for mut cgroup in &to.cgroups {
        // Before anything of it runs, and while it has the right to. Zero means the process that writes it.
        cgroup.write_all(b"0").map_err(at(12))?;
    }
    for (namespace, kind) in &to.beside {
        // SAFETY: see above.
        check(unsafe { libc::setns(namespace.as_raw_fd(), *kind) }).map_err(at(1))?;
    }
    if let Some(root) = &to.root {
        // SAFETY: see above.
        check(unsafe { libc::fchdir(root.as_raw_fd()) }).map_err(at(1))?;
        // SAFETY: see above.
        check(unsafe { libc::chroot(c".".as_ptr()) }).map_err(at(1))?;
    }
    if to.flags != 0 {
        // SAFETY: see above.
        check(unsafe { libc::unshare(to.flags) }).map_err(at(2))?;
        for (path, text) in &to.maps {
            write_file(path, text).map_err(at(3))?;
        }
        // SAFETY: see above.
        check(unsafe { libc::sethostname(to.hostname.as_ptr().cast(), to.hostname.len()) }).map_err(at(4))?;
        // Of the host: what is unmounted there, a volume say, must not be held here.
        let of_host = libc::MS_REC | libc::MS_SLAVE;
        let (none, root, null) = (c"none".as_ptr(), c"/".as_ptr(), std::ptr::null());
        // Before the plan: on shared mounts, its steps would show on the host too.
        // SAFETY: see above.
        check(unsafe { libc::mount(none, root, null, of_host, null.cast()) }).map_err(at(MOUNTS))?;
        for (number, (step, _)) in to.plan.steps.iter().enumerate() {
            let mount = u16::try_from(number).unwrap_or(u16::MAX);
            step.run().map_err(|error| Failed { step: MOUNTS, mount, error })?;
        }
    }
    if !to.folder_as_user {
        // SAFETY: see above.
        check(unsafe { libc::chdir(to.folder.as_ptr()) }).map_err(at(6))?;
    }
    if let Some(keep) = to.capabilities {
        // While it still has the right to.
        rights::bound(keep).map_err(at(10))?;
    }
    // Groups, then the group, then the user: a process that has given up user 0 may change neither.
    if let Some(groups) = &to.groups {
        // SAFETY: see above.
        check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }).map_err(at(7))?;
    }
    if let Some(group) = to.group {
        // SAFETY: see above.
        check(unsafe { libc::setgid(group) }).map_err(at(7))?;
    }
    if let Some(user) = to.user {
        // SAFETY: see above.
        check(unsafe { libc::setuid(user) }).map_err(at(7))?;
    }
    if let Some(keep) = to.capabilities {
        rights::keep(keep).map_err(at(10))?;
    }
    if to.folder_as_user {
        // A folder that the pod names: the agent's own rights, and its open files (/proc/self/fd), are no way in.
        // SAFETY: see above.
        check(unsafe { libc::chdir(to.folder.as_ptr()) }).map_err(at(6))?;
    }
    // SAFETY: see above. After the change of user, which would undo it.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map_err(at(8))?;
    // If the shim ended before the signal was asked for, it never comes.
    // SAFETY: see above.
    if unsafe { libc::getppid() } != to.parent {
        return Err(at(8)(io::Error::from_raw_os_error(libc::ESRCH)));
    }
    if to.terminal {
        // SAFETY: see above.
        check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) }).map_err(at(9))?;
    }
    if to.no_new_privileges {
        rights::no_new().map_err(at(11))?;
    }
    Ok(())
}

fn write_file(path: &CString, text: &[u8]) -> io::Result<()> {
    // SAFETY: the path lives through the call; the descriptor is owned by what is made of it.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(file)?;
    // SAFETY: open just answered it, and nobody else has it.
    let mut file = File::from(unsafe { OwnedFd::from_raw_fd(file) });
    file.write_all(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_is_given_is_not_shown() {
        let words = |of: &str| vec!["run".to_owned(), of.to_owned()];
        let env = |of: &str| vec![("KEY".to_owned(), of.to_owned())];
        let fine = Command { argv: words("hidden"), env: env("hidden"), ..Command::default() };
        assert!(fine.check_words().is_ok() && !format!("{fine:?}").contains("hidden"));
        for (argv, env, named) in
            [(words("hidden\0"), env(""), "argument 1"), (words(""), env("hidden\0"), "variable \"KEY\"")]
        {
            let refused = Command { argv, env, ..Command::default() }.check_words().unwrap_err().to_string();
            assert!(refused.contains(named) && !refused.contains("hidden"), "{refused}");
        }
    }
}
