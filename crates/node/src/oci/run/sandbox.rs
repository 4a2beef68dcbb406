//! What all containers of a pod share, held by its shim: namespaces, as open files, and the memory at `/dev/shm`, in the
//! shim's own mount namespace. A container that is started again finds them as they were; with the shim they are gone.

use std::convert::Infallible;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pipe2};
use serde::{Deserialize, Serialize};

use super::child::{Failure, Line, Trying, check, make};
use super::inside::trusted;
use super::root;
use crate::container::mounting::{NODEV, NOEXEC, NOSUID, RDONLY, move_mount, new_mount};
use crate::oci::spec::{Mapping, Namespace, NamespaceKind, Spec};

/// What a pod's sandbox is to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Wanted {
    /// The pod's own host name; None if it has the host's.
    pub hostname: Option<String>,
    /// Whether it has messages and shared memory of its own (`ipc`).
    pub ipc: bool,
    /// Whether it has a network of its own.
    #[serde(default)]
    pub network: bool,
    /// Whether its containers see each other's processes (`shareProcessNamespace`).
    pub shares_processes: bool,
    /// The host's users that are its own (`hostUsers: false`).
    pub users: Option<Mapping>,
    /// Names and values of kernel parameters of its own.
    pub sysctls: Vec<(String, String)>,
    /// The folder that becomes its `/dev/shm`; None if it has the host's.
    pub shared_memory: Option<PathBuf>,
    /// Its volumes in memory.
    #[serde(default)]
    pub memory: Vec<InMemory>,
}

/// A volume in memory (`emptyDir` with `medium: Memory`): its shim's, so that it is there as long as the pod is, and nowhere else; or the host's, where
/// a runtime of others has the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InMemory {
    /// The folder that becomes it.
    pub folder: PathBuf,
    /// How many bytes it holds at most.
    pub size: u64,
    /// The group whose it is (`fsGroup`).
    pub group: Option<u32>,
}

impl InMemory {
    /// Mounts it, where this process has its mounts.
    ///
    /// # Errors
    /// What failed.
    pub(crate) fn mount(&self) -> Result<(), Failure> {
        let what = format!("make the volume in memory {}", self.folder.display());
        let size = CString::new(self.size.to_string()).trying(&what)?;
        let group = self.group.map(|group| CString::new(group.to_string())).transpose().trying(&what)?;
        // As a folder on the disk has it.
        let mode = if group.is_some() { c"2777" } else { c"777" };
        let mut options = vec![(c"size", Some(&*size)), (c"mode", Some(mode))];
        options.extend(group.as_deref().map(|group| (c"gid", Some(group))));
        fs::create_dir_all(&self.folder).trying(&what)?;
        let memory = new_mount(c"tmpfs", c"tmpfs", &options, 0).trying(&what)?;
        move_mount(memory.as_fd(), trusted(&self.folder).trying(&what)?.as_fd()).trying(&what)
    }
}

/// A sandbox that is there.
#[derive(Debug, Default)]
pub(crate) struct Held {
    files: Vec<(NamespaceKind, OwnedFd)>,
    /// The mount namespace of the host, for what a container mounts there.
    host: Option<Arc<OwnedFd>>,
}

impl Held {
    /// Makes one, for the process that asks.
    ///
    /// # Errors
    /// What failed.
    pub(crate) fn make(wanted: &Wanted) -> Result<Self, Failure> {
        let host = File::open("/proc/self/ns/mnt").trying("hold the host's mount namespace")?;
        // What is mounted here shows nowhere else; what the host mounts later shows here.
        own_mounts()?;
        if let Some(folder) = &wanted.shared_memory {
            let what = "make /dev/shm";
            fs::create_dir_all(folder).trying(what)?;
            // As much as containerd gives (`defaultShmSize`).
            let options = [(c"mode", Some(c"1777")), (c"size", Some(c"64m"))];
            let memory = new_mount(c"tmpfs", c"shm", &options, NOSUID | NODEV | NOEXEC).trying(what)?;
            let place = trusted(folder).trying(what)?;
            move_mount(memory.as_fd(), place.as_fd()).trying(what)?;
        }
        wanted.memory.iter().try_for_each(InMemory::mount)?;
        let mut held = Held { files: namespaces(wanted)?, host: Some(Arc::new(host.into())) };
        if wanted.shares_processes {
            let users =
                held.files.iter().find(|(kind, _)| *kind == NamespaceKind::User).map(|(_, file)| file);
            let pid = make(|| enter_processes(users), pause)?;
            held.files.push((NamespaceKind::Pid, of_process(pid, NamespaceKind::Pid)?));
        }
        Ok(held)
    }

    /// Its namespaces, by paths that are right as long as this process lives.
    pub(crate) fn namespaces(&self) -> Vec<Namespace> {
        self.files.iter().map(|(kind, file)| held(*kind, file)).collect()
    }

    /// The mount namespace of the host.
    pub(crate) fn host_mounts(&self) -> Option<Arc<OwnedFd>> {
        self.host.clone()
    }

    /// Its network namespace, if it has one of its own.
    pub(crate) fn network(&self) -> Option<OwnedFd> {
        let (_, file) = self.files.iter().find(|(kind, _)| *kind == NamespaceKind::Network)?;
        file.try_clone().ok()
    }
}

/// A namespace that this process has open.
fn held(kind: NamespaceKind, file: &OwnedFd) -> Namespace {
    let path = format!("/proc/{}/fd/{}", nix::unistd::getpid(), file.as_raw_fd());
    Namespace { kind, path: Some(path.into()) }
}

/// The namespace of a process' own processes, as an open file.
///
/// # Errors
/// If it can't be looked at.
pub(crate) fn processes_of(pid: i32) -> Result<OwnedFd, Failure> {
    of_process(pid, NamespaceKind::Pid)
}

impl Spec {
    /// Has it begin in this namespace of processes, which must stay open until then.
    pub(crate) fn join_processes(&mut self, processes: &OwnedFd) {
        self.linux.namespaces.retain(|namespace| namespace.kind != NamespaceKind::Pid);
        self.linux.namespaces.push(held(NamespaceKind::Pid, processes));
    }
}

/// A mount namespace of one's own, in which the host's mounts still show but not the other way round.
pub(super) fn own_mounts() -> Result<(), Failure> {
    // SAFETY: here and below: calls on numbers, and on strings that live through them.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).trying("make a mount namespace")?;
    let (none, root) = (std::ptr::null(), c"/".as_ptr());
    // SAFETY: see above.
    check(unsafe { libc::mount(none, root, none, libc::MS_REC | libc::MS_SLAVE, none.cast()) })
        .trying("keep mounts from the host")
}

/// Becomes the root of a user namespace that this process has just entered.
pub(super) fn become_root_of_users() -> Result<(), Failure> {
    // SAFETY: here and below: calls on numbers.
    check(unsafe { libc::setresgid(0, 0, 0) }).trying("become the group 0 of the user namespace")?;
    // SAFETY: see above.
    check(unsafe { libc::setresuid(0, 0, 0) }).trying("become the user 0 of the user namespace")
}

/// Enters a namespace that is open.
pub(super) fn enter(file: &impl AsRawFd, kind: NamespaceKind) -> Result<(), Failure> {
    // SAFETY: a call on an open descriptor and a number.
    check(unsafe { libc::setns(file.as_raw_fd(), kind.flag()) })
        .trying(format_args!("enter the pod's {} namespace", kind.file()))
}

fn of_process(pid: i32, kind: NamespaceKind) -> Result<OwnedFd, Failure> {
    let path = format!("/proc/{pid}/ns/{}", kind.file());
    File::open(path).map(OwnedFd::from).trying(format_args!("hold the pod's {} namespace", kind.file()))
}

/// A process that lives for a moment makes the namespaces, so that this one stays where it is.
fn namespaces(wanted: &Wanted) -> Result<Vec<(NamespaceKind, OwnedFd)>, Failure> {
    let kinds: Vec<NamespaceKind> = [
        (NamespaceKind::User, wanted.users.is_some()),
        (NamespaceKind::Ipc, wanted.ipc),
        (NamespaceKind::Uts, wanted.hostname.is_some()),
        (NamespaceKind::Network, wanted.network),
    ]
    .into_iter()
    .filter_map(|(kind, wanted)| wanted.then_some(kind))
    .collect();
    if kinds.is_empty() {
        return Ok(Vec::new());
    }
    let pipe = || -> Result<(File, File), Failure> {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).trying("make a pipe")?;
        Ok((read.into(), write.into()))
    };
    let ((mut told, mut tell), (mut go, mut gone)) = (pipe()?, pipe()?);
    // SAFETY: the shim has one thread: its child may do whatever it could do itself.
    match unsafe { fork() }.trying("fork")? {
        ForkResult::Child => {
            drop((told, gone));
            let why = make_namespaces(wanted, &kinds, &mut tell, &mut go).err().unwrap_or_default();
            let _ = tell.write_all(why.as_bytes());
            // Held until it was looked at.
            let _ = go.read(&mut [0]);
            // SAFETY: ends this child at once.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop((tell, go));
            let mut held = || -> Result<Vec<(NamespaceKind, OwnedFd)>, Failure> {
                if let Some(users) = wanted.users {
                    await_step(&mut told)?;
                    map_users(child.as_raw(), users).trying("map the pod's users")?;
                    gone.write_all(&[1]).trying("go on")?;
                }
                await_step(&mut told)?;
                kinds.iter().map(|kind| Ok((*kind, of_process(child.as_raw(), *kind)?))).collect()
            };
            let held = held();
            drop(gone);
            let _ = waitpid(child, None);
            held
        }
    }
}

/// A zero says that a step is done; anything else is why it failed.
fn await_step(told: &mut File) -> Result<(), Failure> {
    let mut byte = [0];
    match told.read(&mut byte).trying("make namespaces")? {
        1 if byte[0] == 0 => Ok(()),
        read => {
            let mut why = byte[..read].to_vec();
            let _ = told.take(4096).read_to_end(&mut why);
            Err(String::from_utf8_lossy(&why).into_owned())
        }
    }
}

fn make_namespaces(
    wanted: &Wanted,
    kinds: &[NamespaceKind],
    tell: &mut File,
    go: &mut File,
) -> Result<(), Failure> {
    for kind in kinds {
        // SAFETY: a call on a number.
        check(unsafe { libc::unshare(kind.flag()) })
            .trying(format_args!("make a namespace ({})", kind.file()))?;
        if *kind == NamespaceKind::User {
            tell.write_all(&[0]).trying("ask for the users")?;
            go.read_exact(&mut [0]).trying("wait for the users")?;
            become_root_of_users()?;
        }
    }
    if let Some(name) = &wanted.hostname {
        nix::unistd::sethostname(name).trying("set the host name")?;
    }
    for (name, value) in &wanted.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::write(path, value).trying(format_args!("set the sysctl {name}"))?;
    }
    tell.write_all(&[0]).trying("tell that the namespaces are there")
}

fn map_users(pid: i32, users: Mapping) -> io::Result<()> {
    let line = format!("{} {} {}", users.container_id, users.host_id, users.size);
    fs::write(format!("/proc/{pid}/uid_map"), &line)?;
    fs::write(format!("/proc/{pid}/gid_map"), &line)
}

fn enter_processes(users: Option<&OwnedFd>) -> Result<(), Failure> {
    if let Some(users) = users {
        enter(users, NamespaceKind::User)?;
        become_root_of_users()?;
    }
    // SAFETY: here and below: calls on numbers.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) }).trying("make a namespace of processes")?;
    // SAFETY: see above.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }).trying("make a mount namespace")
}

/// The first process of a pod whose containers share theirs: nothing of the host is left to it, it does nothing but bury, and
/// ends with the shim.
fn pause((): (), line: Line) -> Result<Infallible, (Failure, Line)> {
    let prepare = || {
        // SAFETY: here and below: calls on numbers.
        check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).trying("tie it to its shim")?;
        let root =
            new_mount(c"tmpfs", c"tmpfs", &[(c"mode", Some(c"555"))], RDONLY | NOSUID | NODEV | NOEXEC)
                .trying("make an empty root")?;
        root::leave_host(&root).trying("leave the host's root")?;
        nix::sys::prctl::set_name(c"pause").trying("take a name")
    };
    if let Err(why) = prepare() {
        return Err((why, line));
    }
    // SAFETY: see above. Children that nobody waits for are buried by the kernel then.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    line.close();
    // What the shim has open is none of its business, and would stay open with it.
    // SAFETY: see above: nobody here uses a file any more.
    unsafe { libc::syscall(libc::SYS_close_range, 0, libc::c_uint::MAX, 0) };
    loop {
        // SAFETY: see above.
        unsafe { libc::pause() };
    }
}
