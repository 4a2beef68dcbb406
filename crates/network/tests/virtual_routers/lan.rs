//! Networks of hosts in namespaces: `eth0` of each on one bridge, `eth1` on another, and somebody who listens on the first.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Weak, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use network::VirtualRouters;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use vrrp::{Advert, Settings};

/// Longer than anything takes, so that a test that waits for it has failed.
const SOON: Duration = Duration::from_secs(20);
const OBSERVER: u8 = 250;

/// A network namespace, which lives as long as this does.
pub struct Namespace(File);

impl Namespace {
    fn new() -> Result<Self, String> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        });
        made.join().unwrap().map(Namespace).map_err(|why| why.to_string())
    }

    fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }

    /// A program that runs in it.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    pub fn ip(&self, arguments: &str) -> String {
        let output = self.command("ip").args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Whether it has an address.
    pub fn holds(&self, address: &str) -> bool {
        self.ip("-4 -o address show").contains(&format!(" {address}/32 "))
    }

    /// Starts a thread in it.
    fn thread<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
        let file = self.0.try_clone().unwrap();
        thread::spawn(move || {
            setns(file, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
    }

    /// Starts our virtual routers in it.
    pub fn ours(&self, settings: serde_json::Value) -> Ours {
        let settings: Settings = serde_json::from_value(settings).unwrap();
        assert_eq!(settings.problems(), []);
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = self.thread(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let routers = VirtualRouters::start(settings, &[], &Handle::current()).unwrap();
                let _ = stopped.await;
                routers.stop().await;
            });
        });
        Ours { stop: Some(stop), thread: Some(thread) }
    }

    /// Starts keepalived in it.
    pub fn keepalived(&self, configuration: &str) -> Keepalived {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let general = "global_defs {\n vrrp_version 3\n script_user root\n enable_script_security\n}\n";
        std::fs::write(file("conf"), general.to_owned() + configuration).unwrap();
        let log = File::create(file("log")).unwrap();
        let mut command = self.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--log-detail", "--vrrp"]);
        command.arg("--use-file").arg(file("conf")).arg("--pid").arg(file("pid"));
        command.arg("--vrrp_pid").arg(file("vrrp-pid")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Keepalived { child, folder }
    }
}

/// Our virtual routers on a host; dropped, they stop in order.
pub struct Ours {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Ours {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking());
    }
}

/// keepalived on a host; dropped, it stops in order.
pub struct Keepalived {
    child: Child,
    folder: tempfile::TempDir,
}

impl Keepalived {
    /// Whether its log has these words.
    pub fn says(&self, words: &str) -> bool {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap().contains(words)
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("{}", std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default());
        }
    }
}

/// Who said what, and when.
pub struct Said {
    pub at: Instant,
    /// The last number of the host's address.
    pub host: u8,
    pub priority: u8,
}

pub struct Lan {
    switch: Namespace,
    heard: mpsc::Receiver<Said>,
    _wanted: Arc<()>,
}

impl Lan {
    /// None, with a word about it, where this machine can't have one or lacks keepalived.
    pub fn new() -> Option<Lan> {
        if !["ip", "nsenter", "keepalived"].iter().all(|program| testing::has(program)) {
            return None;
        }
        let (switch, observer) = match (Namespace::new(), Namespace::new()) {
            (Ok(switch), Ok(observer)) => (switch, observer),
            (Err(why), _) | (_, Err(why)) => {
                testing::skip("netns", format_args!("no network namespace ({why})"));
                return None;
            }
        };
        for bridge in ["br0", "br1"] {
            switch.ip(&format!("link add {bridge} type bridge"));
            switch.ip(&format!("link set {bridge} up"));
        }
        connect(&switch, &observer, OBSERVER);
        let (said, heard) = mpsc::channel();
        let wanted = Arc::new(());
        let until = Arc::downgrade(&wanted);
        observer.thread(move || listen(&said, &until));
        Some(Lan { switch, heard, _wanted: wanted })
    }

    /// A host: 10.73.0.n on the one network, and 10.74.0.n on the other.
    pub fn host(&self, n: u8) -> Namespace {
        let host = Namespace::new().unwrap();
        connect(&self.switch, &host, n);
        host
    }

    /// Pulls a host's cable out of a bridge, 0 or 1.
    pub fn cut(&self, n: u8, bridge: u8) {
        self.switch.ip(&format!("link set p{n}e{bridge} down"));
    }

    pub fn mend(&self, n: u8, bridge: u8) {
        self.switch.ip(&format!("link set p{n}e{bridge} up"));
    }

    /// The next that is said; what was said before is forgotten with `forget`.
    pub fn next(&self) -> Said {
        self.heard.recv_timeout(SOON).expect("nobody says anything")
    }

    pub fn forget(&self) {
        while self.heard.try_recv().is_ok() {}
    }

    /// Waits until `count` advertisements in a row were a host's, and `holds` is so.
    pub fn settles(&self, host: u8, count: u32, holds: impl Fn() -> bool) {
        let end = Instant::now() + SOON;
        let mut in_a_row = 0;
        while in_a_row < count || !holds() {
            assert!(Instant::now() < end, "host {host} doesn't become the only master");
            let said = self.next();
            in_a_row = if said.host == host { in_a_row + 1 } else { 0 };
        }
    }
}

/// Waits until it is so.
pub fn wait(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + SOON;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::yield_now();
    }
}

fn connect(switch: &Namespace, host: &Namespace, n: u8) {
    host.ip("link set lo up");
    for bridge in [0, 1] {
        let (port, link) = (format!("p{n}e{bridge}"), format!("eth{bridge}"));
        switch.ip(&format!("link add {port} type veth peer name {link} netns {}", host.path()));
        switch.ip(&format!("link set {port} master br{bridge} up"));
        host.ip(&format!("address add 10.{}.0.{n}/24 dev {link}", 73 + bridge));
        host.ip(&format!("link set {link} up"));
    }
}

/// Tells what is said on the first network, while somebody wants to know.
fn listen(said: &mpsc::Sender<Said>, wanted: &Weak<()>) {
    let protocol = Protocol::from(i32::from(vrrp::packet::PROTOCOL));
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol)).unwrap();
    let own = InterfaceIndexOrAddress::Address(Ipv4Addr::new(10, 73, 0, OBSERVER));
    socket.join_multicast_v4_n(&vrrp::packet::GROUP, &own).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut buffer = [MaybeUninit::uninit(); vrrp::packet::LARGEST];
    while wanted.strong_count() > 0 {
        if let Ok(length) = socket.recv(&mut buffer) {
            // SAFETY: `recv` says how much of the buffer it has written.
            let packet: Vec<u8> = buffer[..length].iter().map(|byte| unsafe { byte.assume_init() }).collect();
            let (from, Advert { priority, .. }) = Advert::read(&packet).unwrap();
            let heard = Said { at: Instant::now(), host: from.octets()[3], priority };
            let _ = said.send(heard);
        }
    }
}
