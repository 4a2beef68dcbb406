//! A host whose network is one of the test's own.

use std::process::Command;
use std::sync::Arc;

use network::PodLinks;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::{Addresses, Network, TestHost};

/// What of the machine a test has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Its network.
    Network,
    /// Its mounts too: nothing of them shows elsewhere, and they end with the test.
    Mounts,
}

/// Runs `ip`, and answers what it prints.
pub fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a test on threads of their own, in a network of their own in which a host's pods can have theirs.
pub fn on_threads_with<F: Future<Output = ()>>(own: Own, test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        if own == Own::Mounts {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        }
        for command in [
            "link set lo up",
            "link add name eth0 type veth peer name far",
            "link set eth0 up",
            "address add 10.73.0.1/24 dev eth0",
            "route add local 10.244.1.0/24 dev lo",
            "route add local 10.96.0.0/16 dev lo",
        ] {
            ip(command);
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl TestHost {
    /// A host whose pods have networks of their own, and whose agent is not started yet. It is for [`on_threads_with`].
    pub async fn with_networks() -> Self {
        let pods = "10.244.1.0/24".parse().unwrap();
        let links = PodLinks::open(pods, pods, "eth0").await.unwrap();
        let mut host = TestHost::off();
        host.pods = Some(pods);
        host.addresses = Arc::new(Addresses(Default::default(), Network::Own(links), Default::default()));
        host
    }
}
