//! A host as the manager of services sees it that starts it: by the protocol of sd_notify(3), at a socket of the test's own.

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use libc::{c_void, pid_t};
use local::{Folder, NetKind};

use crate::harness::{HOLDFAST, PATIENCE, lock_loopback};

/// The host, wherever it lives on loopback.
const API: &str = "127.0.1.1:6443";
const AGENT: &str = "127.0.1.1:10250";
/// For how long the manager says that it waits for a sign of life.
const WATCHDOG: Duration = Duration::from_secs(2);

/// A host that was started as systemd would start it.
pub struct Service {
    host: Child,
    manager: UnixDatagram,
    socket: PathBuf,
    log: PathBuf,
}

impl Service {
    /// Starts the program as a host with this configuration; what there is to know about it lies in `dir`.
    pub fn start(program: &Path, dir: &Path, config: &Path) -> Self {
        let (socket, log) = (dir.join("notify"), dir.join("host.log"));
        let manager = UnixDatagram::bind(&socket).unwrap();
        let said = File::create(&log).unwrap();
        let mut command = Command::new(program);
        command.arg("host").arg("--config").arg(config).process_group(0);
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", WATCHDOG.as_micros().to_string());
        command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said);
        Service { host: command.spawn().unwrap(), manager, socket, log }
    }

    /// The next message; none if there is none within that time.
    fn hears(&self, within: Duration) -> Option<String> {
        self.manager.set_read_timeout(Some(within)).unwrap();
        let mut buffer = [0; 512];
        let length = self.manager.recv(&mut buffer).ok()?;
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Waits for a message that begins so, and returns it.
    pub fn waits_for(&self, beginning: &str) -> String {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(message) = self.hears(PATIENCE).filter(|message| message.starts_with(beginning)) {
                return message;
            }
        }
        panic!("waited {PATIENCE:?} for {beginning}");
    }

    /// Sends the host a signal.
    pub fn signal(&self, signal: i32) {
        let pid = pid_t::try_from(self.host.id()).unwrap();
        // SAFETY: kill has no memory effects; the process is a child that wasn't waited for.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "the host runs");
    }

    /// Waits for the host's end.
    pub fn ends(mut self) -> ExitStatus {
        self.host.wait().unwrap()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
        let _ = fs::remove_file(&self.socket);
        if std::thread::panicking() {
            eprintln!("what the host wrote:\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// Threads of another process that stand still for as long as this lives: traced by this thread, which must be the one that drops it.
struct Halted(Vec<pid_t>);

impl Halted {
    /// Those that answer the API: of tokio's runtime without a name of its own.
    fn those_that_answer(pid: u32) -> std::io::Result<Self> {
        let mut halted = Halted(Vec::new());
        for task in fs::read_dir(format!("/proc/{pid}/task"))?.filter_map(Result::ok) {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            let thread = task.file_name().to_str().and_then(|thread| thread.parse::<pid_t>().ok());
            let Some(thread) = thread.filter(|_| name.starts_with("tokio-r")) else { continue };
            // SAFETY: these requests read and write no memory of this process.
            let is_traced = unsafe {
                libc::ptrace(libc::PTRACE_SEIZE, thread, null_mut::<c_void>(), null_mut::<c_void>()) == 0
            };
            if !is_traced {
                return Err(std::io::Error::last_os_error());
            }
            halted.0.push(thread);
            // SAFETY: as above.
            unsafe {
                libc::ptrace(libc::PTRACE_INTERRUPT, thread, null_mut::<c_void>(), null_mut::<c_void>())
            };
            let mut status = 0;
            // SAFETY: the call writes the status that it is given.
            unsafe { libc::waitpid(thread, &mut status, libc::__WALL) };
            assert!(libc::WIFSTOPPED(status), "{name} stands still");
        }
        assert!(halted.0.len() >= 2, "two threads answer the API");
        Ok(halted)
    }
}

impl Drop for Halted {
    fn drop(&mut self) {
        for thread in &self.0 {
            // SAFETY: the request reads and writes no memory of this process.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, *thread, null_mut::<c_void>(), null_mut::<c_void>()) };
        }
    }
}

#[test]
fn a_host_says_when_it_is_up_that_it_lives_and_when_it_ends() {
    let _loopback = lock_loopback();
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::open_or_create(&dir.path().join("cluster"), 1, NetKind::Loopback).unwrap();
    let kubeconfig = folder.write_kubeconfig(&format!("https://{API}")).unwrap();
    let config = folder.config_file("n1");

    let service = Service::start(Path::new(HOLDFAST), dir.path(), &config);
    let ready = service.waits_for("READY=1");
    // At once, and at the first try.
    TcpStream::connect(AGENT).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = client::Client::new(&client::Kubeconfig::load(&kubeconfig).unwrap()).unwrap();
    let version = runtime.block_on(client.get("/version")).unwrap();
    assert_eq!(version["major"], "1", "{version}");
    assert_eq!(ready, format!("READY=1\nSTATUS=n1 answers at {API}"));
    for _ in 0..5 {
        service.waits_for("WATCHDOG=1");
    }
    service.signal(libc::SIGTERM);
    service.waits_for("STOPPING=1");
    assert!(service.ends().success());

    // The threads that answer the API stand still, and all others go on: nobody says that the host lives.
    let service = Service::start(Path::new(HOLDFAST), dir.path(), &config);
    service.waits_for("READY=1");
    service.waits_for("WATCHDOG=1");
    let halted = match Halted::those_that_answer(service.host.id()) {
        Ok(halted) => halted,
        Err(why) => return testing::skip("ptrace", format_args!("threads can't be halted: {why}")),
    };
    // What was on its way already: an answer may have come just before, and its sign be sent by a thread that is late.
    while service.hears(Duration::from_millis(1)).is_some() {}
    let _ = service.hears(WATCHDOG / 2);
    assert_eq!(service.hears(WATCHDOG), None, "a host whose API hangs doesn't live");
    drop(halted);
}
