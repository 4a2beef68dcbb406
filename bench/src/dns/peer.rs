//! A peer: unbound or dnsmasq, with the same names as its own data, on one thread.

use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use super::cluster::{self, CASES};

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// NLnet Labs' resolver.
    Unbound,
    /// The forwarder of small networks.
    Dnsmasq,
}

impl Kind {
    /// Its name, also as a program.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Unbound => "unbound",
            Kind::Dnsmasq => "dnsmasq",
        }
    }

    fn program(self) -> Option<&'static str> {
        let paths = match self {
            Kind::Unbound => ["/usr/sbin/unbound", "/usr/local/sbin/unbound"],
            Kind::Dnsmasq => ["/usr/sbin/dnsmasq", "/usr/local/sbin/dnsmasq"],
        };
        paths.into_iter().find(|path| Path::new(path).exists())
    }
}

/// The first that is installed.
pub fn installed() -> Option<Kind> {
    [Kind::Unbound, Kind::Dnsmasq].into_iter().find(|kind| kind.program().is_some())
}

/// A running peer; ended when it is dropped.
pub struct Peer {
    process: Child,
    address: SocketAddr,
    folder: TempDir,
}

impl Peer {
    /// Starts one.
    ///
    /// # Errors
    /// If it isn't installed, or doesn't answer.
    pub fn start(kind: Kind, services: usize) -> anyhow::Result<Self> {
        let program = kind.program().with_context(|| format!("{} is not installed", kind.name()))?;
        let folder = tempfile::tempdir()?;
        let address = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let names = (0..services).flat_map(|service| {
            let own = [(cluster::name(service), cluster::address(service))];
            let endpoints =
                cluster::endpoints(service).map(move |address| (cluster::headless(service), address));
            own.into_iter().chain(endpoints)
        });
        let mut command = Command::new(program);
        match kind {
            Kind::Unbound => {
                let file = folder.path().join("unbound.conf");
                std::fs::write(&file, unbound(names, address, folder.path()))?;
                command.arg("-d").arg("-c").arg(file);
            }
            Kind::Dnsmasq => {
                let file = folder.path().join("hosts");
                let lines: String = names.map(|(name, address)| format!("{address} {name}\n")).collect();
                std::fs::write(&file, lines)?;
                command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--listen-address=127.0.0.1"]);
                command.args(["--bind-interfaces", "--no-resolv", "--no-hosts", "--local=/cluster.local/"]);
                command.args(["--user=", "--pid-file=", "--local-ttl=5"]);
                command
                    .arg(format!("--port={}", address.port()))
                    .arg(format!("--addn-hosts={}", file.display()));
            }
        }
        let output = std::fs::File::create(folder.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().with_context(|| format!("can't start {program}"))?;
        let peer = Peer { process, address, folder };
        peer.wait_until_it_answers()?;
        Ok(peer)
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn wait_until_it_answers(&self) -> anyhow::Result<()> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        // Not connected: the system would say at once that nobody listens yet, and there would be no time in which the peer starts.
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut buffer = [0; 2048];
        for _ in 0..300 {
            let _ = socket.send_to(&CASES[0].question(0), self.address);
            if socket.recv(&mut buffer).is_ok_and(|length| CASES[0].is_answer(&buffer[..length])) {
                return Ok(());
            }
        }
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        anyhow::bail!("the peer doesn't answer: {log}")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn unbound(names: impl Iterator<Item = (String, Ipv4Addr)>, address: SocketAddr, folder: &Path) -> String {
    let mut text = format!(
        "server:\n  interface: {}\n  port: {}\n  directory: {:?}\n  chroot: \"\"\n  username: \"\"\n  pidfile: \"\"\n  \
         use-syslog: no\n  verbosity: 0\n  do-daemonize: no\n  num-threads: 1\n  access-control: 127.0.0.0/8 allow\n  \
         local-zone: \"cluster.local.\" static\n",
        address.ip(),
        address.port(),
        folder
    );
    for (name, address) in names {
        // Writing to a string never fails.
        let _ = writeln!(text, "  local-data: \"{name}. 5 IN A {address}\"");
    }
    text
}
