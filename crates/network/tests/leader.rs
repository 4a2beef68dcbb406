//! What becomes of the API's virtual address when the program of the host that leads doesn't run any more. The hosts, each in a network
//! namespace of its own, and the keepers of their addresses are this program itself, so it has no harness around it.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.
#![allow(clippy::disallowed_methods)] // Waits for conditions, for a bounded time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use membership::LeasePage;
use network::{HostNetwork, Mode, Network, Options};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use store::Memory;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(30);
const NAME: &str = "the_address_of_a_leader_that_is_killed_or_stopped_leaves_its_link";

fn main() -> ExitCode {
    if let Some(ended) = network::run_address_keeper() {
        return ended;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().find(|argument| !argument.starts_with('-')) {
        Some(mode) if mode == "host" => be_host(),
        _ if arguments.iter().any(|argument| argument == "--list") => {}
        Some(filter) if !NAME.contains(filter.as_str()) => {}
        _ => {
            leave_the_link();
            println!("test {NAME} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// A host that leads a store of its own, for as long as it is let.
fn be_host() {
    let own = HostNetwork { address: [10, 73, 0, 1].into(), pods: "10.244.1.0/24".parse().unwrap() };
    let hosts = watch::Sender::new(Arc::new(BTreeMap::from([("n1".to_owned(), own)])));
    let options = Options {
        name: "n1".into(),
        mode: Mode::Namespaces { link: "eth0".into() },
        hosts: hosts.subscribe(),
        services: "10.96.0.0/16".parse().unwrap(),
        cluster: "10.244.0.0/16".parse().unwrap(),
        virtual_address: "10.73.0.100:6443".parse().unwrap(),
        answered: Vec::new(),
        page: LeasePage::create().unwrap(),
        program: Some("/proc/self/exe".into()),
        company: None,
        load_balancing: None,
        cut_off: None,
        most_connections: 64,
    };
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let silence = watch::Sender::new(Arc::new(membership::Hosts::default()));
        let (store, carrying) = (Arc::new(Memory::default()), Handle::current());
        let _network = Network::start(options, store, silence.subscribe(), || {}, &carrying).await.unwrap();
        std::future::pending::<()>().await;
    });
}

/// A host's process, and its network namespace, which is there for longer.
struct Host {
    process: Child,
    namespace: File,
}

impl Host {
    /// None where there are no such namespaces.
    fn start() -> Option<Host> {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
            File::open("/proc/thread-self/ns/net")
        });
        let namespace = match made.join().unwrap() {
            Ok(namespace) => namespace,
            Err(why) => {
                testing::skip("netns", format_args!("no network namespace ({why})"));
                return None;
            }
        };
        for line in [
            "link add eth0 type veth peer name far",
            "link set eth0 up",
            "link set far up",
            "address add 10.73.0.1/24 dev eth0",
        ] {
            let status = enter(&namespace, "ip").args(line.split(' ')).status().unwrap();
            assert!(status.success(), "ip {line}");
        }
        let this = std::env::current_exe().unwrap();
        let process = enter(&namespace, this.to_str().unwrap()).arg("host").spawn().unwrap();
        Some(Host { process, namespace })
    }

    /// Waits until it has the virtual address on its link, or hasn't.
    fn holds(&self, wanted: bool) {
        wait(&format!("the address to be there: {wanted}"), || self.has() == wanted);
    }

    fn has(&self) -> bool {
        let output = enter(&self.namespace, "ip").args(["-4", "-o", "address", "show"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("10.73.0.100/32")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    /// The processes that it has started: its keeper.
    fn children(&self) -> BTreeSet<i32> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.process.id())).unwrap();
        let of = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let all: Vec<String> = tasks.flatten().map(of).collect();
        all.iter().flat_map(|pids| pids.split_whitespace()).flat_map(str::parse).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn enter(namespace: &File, program: &str) -> Command {
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd());
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={path}")).arg(program).stdin(Stdio::null());
    command
}

fn wait(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < SOON, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn leave_the_link() {
    if !testing::has("ip") || !testing::has("nsenter") {
        return;
    }
    let Some((runs, fails)) = Host::start().zip(Host::start()) else { return };
    runs.holds(true);
    fails.holds(true);
    fails.signal(Signal::SIGSTOP);
    fails.holds(false);
    assert!(runs.has(), "it runs, and has had the address for as long");
    // It knows that it leads: the store is its own.
    fails.signal(Signal::SIGCONT);
    fails.holds(true);
    fails.signal(Signal::SIGKILL);
    fails.holds(false);

    let keeper = runs.children();
    assert_eq!(keeper.len(), 1, "{keeper:?}");
    for pid in &keeper {
        kill(Pid::from_raw(*pid), Signal::SIGKILL).unwrap();
    }
    wait("another keeper", || !runs.children().is_subset(&keeper));
    assert!(runs.has(), "a keeper's end is no reason to give it up");
    // One that hangs is none.
    wait("one keeper alone", || runs.children().len() == 1);
    let keeper = runs.children();
    for pid in &keeper {
        kill(Pid::from_raw(*pid), Signal::SIGSTOP).unwrap();
    }
    wait("another keeper than the one that hangs", || !runs.children().is_subset(&keeper));
    assert!(runs.has(), "nor is that it hangs");
}
