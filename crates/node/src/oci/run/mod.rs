//! A bundle carried out, in the shim: its one thread lets a child of it do whatever a program does, where elsewhere only
//! system calls are allowed between fork and exec.

mod child;
mod devices;
mod inside;
mod program;
mod root;
mod sandbox;

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;

pub(crate) use devices::of_host as host_devices;
pub(crate) use program::PATH;
pub(crate) use root::{Bundle, WRITTEN};
pub(crate) use sandbox::{Held, InMemory, Wanted, processes_of};

use child::{Failure, Line, Trying, check, make};
use program::Program;

use super::spec::{NamespaceKind, Process, Spec};
use crate::runtime::RunError;

/// Starts a container: its first process, which is answered. `entrances` are where its cgroups are entered.
///
/// # Errors
/// What of the bundle is wrong, or what the system refused.
pub(crate) fn start(
    spec: &Spec,
    bundle: &Bundle,
    streams: &[OwnedFd; 3],
    entrances: &[File],
) -> Result<i32, RunError> {
    let program = Program::of(&spec.process, spec.linux.seccomp.as_ref()).map_err(RunError::Config)?;
    give_streams(spec, streams);
    let enter = || enter_new(spec, bundle, entrances);
    let begin = |(trees, is_mapped), line: Line| {
        let steps = || -> Result<Infallible, Failure> {
            program::begin(streams, spec.process.terminal, &line)?;
            // SAFETY: a call on a number. What is made in the container's root gets the mode that is said.
            unsafe { libc::umask(0) };
            root::furnish(spec, trees, is_mapped)?;
            program::become_program(&spec.process, &program, &line)
        };
        let done = steps();
        done.map_err(|why| (why, line))
    };
    make(enter, begin).map_err(RunError::System)
}

/// Runs a command beside the container whose first process is `pid`: in all of its namespaces, with its user and rights.
///
/// # Errors
/// What of it is wrong, or what the system refused.
pub(crate) fn exec(
    spec: &Spec,
    process: &Process,
    pid: i32,
    streams: &[OwnedFd; 3],
    entrances: &[File],
) -> Result<i32, RunError> {
    let program = Program::of(process, spec.linux.seccomp.as_ref()).map_err(RunError::Config)?;
    give_streams(spec, streams);
    let enter = || enter_beside(process, pid, entrances);
    let begin = |(), line: Line| {
        let steps = || -> Result<Infallible, Failure> {
            program::begin(streams, process.terminal, &line)?;
            program::become_program(process, &program, &line)
        };
        let done = steps();
        done.map_err(|why| (why, line))
    };
    make(enter, begin).map_err(RunError::System)
}

/// Pipes and terminals belong to the container's user, so that it can open them by `/dev/stdout`. What can't be given stays
/// as it is: they are open anyway.
fn give_streams(spec: &Spec, streams: &[OwnedFd; 3]) {
    let of_host = |id: u32| spec.linux.uid_mappings.first().map_or(id, |map| map.host_id.saturating_add(id));
    for stream in streams {
        let is_its_own = nix::sys::stat::fstat(stream).is_ok_and(|about| {
            about.st_mode & libc::S_IFMT == libc::S_IFIFO || nix::unistd::isatty(stream).unwrap_or(false)
        });
        if is_its_own {
            let _ = std::os::unix::fs::fchown(stream, Some(of_host(spec.process.user.uid)), None);
        }
    }
}

/// What every process of a container begins with: nothing of it can be looked at from inside (its memory is the shim's, and its
/// open files are the host's), and all that it makes is in the container's cgroups.
fn prepare(process: &Process, entrances: &[File]) -> Result<(), Failure> {
    // SAFETY: a call on numbers.
    check(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0) }).trying("hide the process")?;
    for mut entrance in entrances {
        // Zero means the process that writes it.
        entrance.write_all(b"0").trying("enter its cgroup")?;
    }
    if let Some(score) = process.oom_score_adj {
        match fs::write("/proc/self/oom_score_adj", score.to_string()) {
            // Less than the agent's own takes a right that an agent in a container may lack: then it has the agent's.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
            done => done.trying("set the score for when memory is short")?,
        }
    }
    if let Some(profile) = &process.apparmor_profile {
        confine_program(profile).trying(format_args!("apply the AppArmor profile {profile}"))?;
    }
    Ok(())
}

/// Has the next program that this process, or one that it forks, becomes be held to a profile of AppArmor; until then nothing is. Done
/// while `/proc` is the host's, of which no image and no volume can make something else.
fn confine_program(profile: &str) -> std::io::Result<()> {
    let place = Path::new("/proc/thread-self/attr");
    // Where several modules of its kind run, the plain one may be another's.
    let own = place.join("apparmor/exec");
    let file = if own.exists() { own } else { place.join("exec") };
    // In one piece, as the kernel takes it.
    File::options().write(true).open(file)?.write_all(format!("exec {profile}").as_bytes())
}

type Entered = (Vec<Option<OwnedFd>>, bool);

fn enter_new(spec: &Spec, bundle: &Bundle, entrances: &[File]) -> Result<Entered, Failure> {
    prepare(&spec.process, entrances)?;
    let mut shared = Vec::new();
    for namespace in &spec.linux.namespaces {
        if let Some(path) = &namespace.path {
            let file = File::open(path)
                .trying(format_args!("open the pod's {} namespace", namespace.kind.file()))?;
            shared.push((namespace.kind, OwnedFd::from(file)));
        }
    }
    let users = shared.iter().find(|(kind, _)| *kind == NamespaceKind::User).map(|(_, file)| file);
    let owner = spec.linux.uid_mappings.first().map_or(0, |map| map.host_id);
    // While the host's paths are there, and the shim's rights.
    let of_host = root::open_shared(spec, bundle)?;
    sandbox::own_mounts()?;
    bundle.mount(spec, users.map(|users| (users, owner)))?;
    let trees = root::open_binds(spec, users, of_host)?;
    for kind in NamespaceKind::ALL {
        let Some(namespace) = spec.linux.namespace(kind) else { continue };
        match shared.iter().find(|(known, _)| *known == kind) {
            Some((_, file)) => {
                sandbox::enter(file, kind)?;
                if kind == NamespaceKind::User {
                    sandbox::become_root_of_users()?;
                }
            }
            // The one that was made above is right, unless the rights are those of another user namespace now.
            None if kind == NamespaceKind::Mount && users.is_none() => {}
            None => {
                // SAFETY: a call on a number.
                check(unsafe { libc::unshare(namespace.kind.flag()) })
                    .trying(format_args!("make a namespace ({})", kind.file()))?;
            }
        }
    }
    Ok((trees, users.is_some()))
}

fn enter_beside(process: &Process, pid: i32, entrances: &[File]) -> Result<(), Failure> {
    prepare(process, entrances)?;
    let mut others = Vec::new();
    for kind in NamespaceKind::ALL {
        let path = |of: &str| format!("/proc/{of}/ns/{}", kind.file());
        let what = format_args!("find the container's {} namespace", kind.file()).to_string();
        let theirs = fs::read_link(path(&pid.to_string())).trying(&what)?;
        // Its own can't always be entered again.
        if fs::read_link(path("self")).trying(&what)? != theirs {
            others.push((kind, File::open(path(&pid.to_string())).trying(&what)?));
        }
    }
    for (kind, file) in &others {
        sandbox::enter(file, *kind)?;
        if *kind == NamespaceKind::User {
            sandbox::become_root_of_users()?;
        }
    }
    Ok(())
}
