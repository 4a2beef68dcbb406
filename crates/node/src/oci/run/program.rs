//! The last steps of a container's process: it takes on its user with his rights, and becomes its program.

use std::convert::Infallible;
use std::ffi::CString;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use super::child::{Failure, Line, Trying, check};
use super::inside::Inside;
use crate::container::{let_through, rights};
use crate::oci::seccomp::{Filter, compile};
use crate::oci::spec::Process;
use crate::oci::spec::Seccomp;

/// Where a program is looked for if its variables don't say.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What can be made ready while memory is at hand and errors are easy to tell.
pub(super) struct Program {
    args: Vec<CString>,
    env: Vec<CString>,
    filter: Option<Filter>,
}

/// Without its arguments and its environment: Secrets may be in them.
impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("filter", &self.filter).finish_non_exhaustive()
    }
}

impl Program {
    pub(super) fn of(process: &Process, seccomp: Option<&Seccomp>) -> Result<Self, Failure> {
        // What they say may be a Secret's.
        let c = |text: &str, what: String| {
            let why = |_| format!("{what} holds a NUL byte, which no process can be given");
            CString::new(text).map_err(why)
        };
        let args = process.args.iter().enumerate();
        let args = args.map(|(at, text)| c(text, format!("argument {at} of its command")));
        let args = args.collect::<Result<Vec<_>, _>>()?;
        if args.is_empty() {
            return Err("no command specified".into());
        }
        let name = |text: &str| text.split('=').next().unwrap_or_default().to_owned();
        let env = process.env.iter().map(|text| c(text, format!("the variable {:?}", name(text))));
        let env = env.collect::<Result<_, _>>()?;
        let filter = seccomp.map(compile).transpose().map_err(|why| format!("seccomp: {why}"))?;
        Ok(Program { args, env, filter })
    }
}

/// The first steps: a session of its own, its streams, and that it dies with its shim.
pub(super) fn begin(streams: &[OwnedFd; 3], terminal: bool, line: &Line) -> Result<(), Failure> {
    for (stream, number) in streams.iter().zip(0..) {
        // SAFETY: here and below: system calls on numbers, and on structs that live through them.
        check(unsafe { libc::dup2(stream.as_raw_fd(), number) }).trying("set up the streams")?;
    }
    // SAFETY: see above.
    check(unsafe { libc::setsid() }).trying("start a session")?;
    if terminal {
        // SAFETY: see above.
        check(unsafe { libc::ioctl(libc::STDIN_FILENO, libc::TIOCSCTTY, 0) })
            .trying("make the terminal the session's")?;
    }
    let_through().trying("let signals through")?;
    own_keyring().trying("make a session keyring")?;
    die_with_shim(line)
}

/// Leaves the keys behind that its shim's session has (keyctl(2)): they are the host's. Nothing where the kernel keeps none.
fn own_keyring() -> io::Result<()> {
    let name: *const libc::c_char = std::ptr::null();
    // SAFETY: a call on a number, and on no name: a new one.
    let ring = unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, name) };
    match io::Error::last_os_error() {
        error if ring < 0 && error.raw_os_error() != Some(libc::ENOSYS) => Err(error),
        _ => Ok(()),
    }
}

fn die_with_shim(line: &Line) -> Result<(), Failure> {
    // SAFETY: a call on numbers.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) })
        .trying("tie the process to its shim")?;
    // If the shim ended before the signal was asked for, it never comes.
    if line.is_dead() { Err("the pod's shim ended".into()) } else { Ok(()) }
}

/// Becomes the program: does not return unless something fails.
pub(super) fn become_program(
    process: &Process,
    program: &Program,
    line: &Line,
) -> Result<Infallible, Failure> {
    let inside = Inside::own().trying("open the root")?;
    let bounds = process.capabilities.as_ref();
    let keep = bounds.map(|all| (rights::bits(&all.bounding), rights::bits(&all.permitted)));
    if let Some((bounding, _)) = keep {
        rights::bound(bounding).trying("bound the capabilities")?;
    }
    let install = || match &program.filter {
        Some(filter) => filter.install().trying("filter system calls"),
        None => Ok(()),
    };
    if !process.no_new_privileges {
        // While it has the right to.
        install()?;
    }
    // With the rights of the container's root first, as runc has it, and with its user's own else.
    let entered = enter(&inside, &process.cwd);
    let user = &process.user;
    // Groups, then the group, then the user: a process that has given up user 0 may change neither.
    // SAFETY: here and below: calls on numbers, and on a list that lives through them.
    check(unsafe { libc::setgroups(user.additional_gids.len(), user.additional_gids.as_ptr()) })
        .trying("set the groups")?;
    // SAFETY: see above.
    check(unsafe { libc::setresgid(user.gid, user.gid, user.gid) }).trying("set the group")?;
    // SAFETY: see above.
    check(unsafe { libc::setresuid(user.uid, user.uid, user.uid) }).trying("set the user")?;
    if let Some((_, permitted)) = keep {
        rights::keep(permitted).trying("drop capabilities")?;
    }
    if entered.is_err() {
        enter(&inside, &process.cwd).trying("change to the working directory")?;
    }
    // After the change of user, which undid it.
    die_with_shim(line)?;
    if process.no_new_privileges {
        rights::no_new().trying("forbid new privileges")?;
        install()?;
    }
    // SAFETY: see above.
    unsafe { libc::umask(0o022) };
    drop(inside);
    Err(exec(process, program))
}

/// Enters a folder within the root: by no link of `/proc`, which could lead to what is open here (CVE-2024-21626).
fn enter(inside: &Inside, folder: &Path) -> io::Result<()> {
    let folder = inside.find(folder)?;
    // SAFETY: a call on an open descriptor.
    check(unsafe { libc::fchdir(folder.as_raw_fd()) })
}

/// Executes it; says why it couldn't.
fn exec(process: &Process, program: &Program) -> Failure {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (args, env) = (pointers(&program.args), pointers(&program.env));
    let name = program.args[0].as_bytes();
    let mut refused = None;
    for path in candidates(name, process) {
        let Ok(path) = CString::new(path) else { continue };
        // SAFETY: the path and both lists, which end with null, live through the call.
        unsafe { libc::execve(path.as_ptr(), args.as_ptr(), env.as_ptr()) };
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // Another folder may have one that may be executed.
            _ => refused = refused.or(Some(error)),
        }
    }
    // In runc's words, which people look for.
    let name = &process.args[0];
    match refused {
        Some(why) => format!("exec: {name:?}: {why}"),
        None if name.contains('/') => format!("exec: {name:?}: stat {name}: no such file or directory"),
        None => format!("exec: {name:?}: executable file not found in $PATH"),
    }
}

/// The paths that a program may have.
fn candidates(name: &[u8], process: &Process) -> Vec<Vec<u8>> {
    if name.contains(&b'/') {
        return vec![name.to_vec()];
    }
    let path = process.env.iter().rev().find_map(|variable| variable.strip_prefix("PATH="));
    let folders = path.unwrap_or(PATH).split(':');
    let folders = folders.map(|folder| if folder.is_empty() { "." } else { folder });
    folders.map(|folder| [folder.as_bytes(), b"/", name].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_program_is_given_is_not_shown() {
        let of = |args: &[&str], env: &[&str]| {
            let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
            let process = Process { args: all(args), env: all(env), ..Process::default() };
            (format!("{process:?}"), Program::of(&process, None))
        };
        let (process, program) = of(&["run", "hidden"], &["KEY=hidden"]);
        assert!(!format!("{process}{:?}", program.unwrap()).contains("hidden"));
        let refused = of(&["run"], &["KEY=hidden\0"]).1.unwrap_err();
        assert!(
            refused.contains("variable \"KEY\" holds a NUL byte") && !refused.contains("hidden"),
            "{refused}"
        );
        let refused = of(&["run", "hidden\0"], &[]).1.unwrap_err();
        assert!(refused.contains("argument 1 ") && !refused.contains("hidden"), "{refused}");
    }

    #[test]
    fn a_program_is_looked_for_where_its_variables_say() {
        let of = |name: &str, env: &[&str]| {
            let env = env.iter().map(|v| (*v).to_owned()).collect();
            let found = candidates(name.as_bytes(), &Process { env, ..Process::default() });
            found.into_iter().map(|path| String::from_utf8(path).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(of("sh", &["PATH=/a::/b"]), ["/a/sh", "./sh", "/b/sh"]);
        assert_eq!(of("./sh", &["PATH=/a"]), ["./sh"]);
        assert_eq!(of("sh", &[]).len(), 6);
    }

    #[test]
    fn no_key_of_the_host_s_session_comes_along() {
        // Of one thread: the others keep theirs.
        let rings = std::thread::spawn(|| {
            // SAFETY: a call on numbers.
            let ring = || unsafe {
                let (get, session) = (libc::KEYCTL_GET_KEYRING_ID, libc::KEY_SPEC_SESSION_KEYRING);
                libc::syscall(libc::SYS_keyctl, get, session, 0)
            };
            let before = ring();
            own_keyring().unwrap();
            (before, ring())
        });
        let (before, after) = rings.join().unwrap();
        assert!(before < 0 || before != after, "{before}");
    }

    #[test]
    fn what_no_process_can_be_given_is_refused() {
        let process = Process { args: vec!["a\0b".into()], ..Process::default() };
        assert!(Program::of(&process, None).unwrap_err().contains("NUL"));
        assert_eq!(Program::of(&Process::default(), None).unwrap_err(), "no command specified");
    }
}
