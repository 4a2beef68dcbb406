//! Three members of one side, each a process of its own, with the processes that load them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pki::{Authority, HostNames};
use tempfile::TempDir;

use super::member::{Order, Report, Setup, Side};
use crate::process::resident_mb;

/// How many members.
pub const MEMBERS: usize = 3;
const PEER_PORT: u16 = 2380;
const CLIENT_PORT: u16 = 2379;

/// A cluster; it ends, with its folder, when dropped.
pub struct Members {
    servers: Vec<Process>,
    doors: Vec<Worker>,
    loads: Vec<Worker>,
    _dir: TempDir,
}

/// A process that is killed when dropped.
struct Process(Child);

/// A process of this program that takes orders: it loads a member, is one, or both.
struct Worker {
    process: Process,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

/// Whose members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// This store's, called within their processes.
    Ours,
    /// This store's, asked through their gRPC door by the client that etcd gets.
    Door,
    /// etcd's.
    Etcd,
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended by itself needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Worker {
    fn send(&mut self, message: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        self.orders.write_all(line.as_bytes()).context("a member's process ended")
    }

    fn report(&mut self) -> anyhow::Result<Report> {
        let mut line = String::new();
        self.reports.read_line(&mut line)?;
        anyhow::ensure!(!line.is_empty(), "a member's process ended");
        match serde_json::from_str(&line)? {
            Report::Failed(problem) => bail!("a member's process failed: {problem}"),
            report => Ok(report),
        }
    }
}

impl Members {
    /// Starts three members with their data in a new folder in `dir`; returns when each takes writes.
    pub fn start(whose: Whose, dir: &Path) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-store-").tempdir_in(dir)?;
        let names: Vec<String> = (1..=MEMBERS).map(|n| format!("m{n}")).collect();
        // Addresses of its own, so that members don't meet those of another run.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = |n: usize| Ipv4Addr::new(127, high | 0x80, low, n as u8 + 1);
        let pki = dir.path().join("pki");
        certificates(&pki, &names, ip)?;
        let mut members = Members { servers: Vec::new(), doors: Vec::new(), loads: Vec::new(), _dir: dir };
        let peers: BTreeMap<String, SocketAddr> = (0..)
            .zip(&names)
            .map(|(n, name)| (name.clone(), SocketAddr::new(ip(n).into(), PEER_PORT)))
            .collect();
        let dir = members._dir.path().to_owned();
        for (n, name) in names.iter().enumerate() {
            let endpoint = format!("https://{}:{CLIENT_PORT}", ip(n));
            let data = dir.join(name);
            let side = match whose {
                Whose::Ours => Side::Ours { peers: peers.clone(), data },
                Whose::Door => {
                    let listen = SocketAddr::new(ip(n).into(), CLIENT_PORT);
                    let side = Side::Door { peers: peers.clone(), data, listen };
                    members.doors.push(start_worker(&Setup { name: name.clone(), pki: pki.clone(), side })?);
                    Side::Etcd { endpoint }
                }
                Whose::Etcd => {
                    members.servers.push(start_etcd(name, ip(n), &peers, &pki, &dir)?);
                    Side::Etcd { endpoint }
                }
            };
            members.loads.push(start_worker(&Setup { name: name.clone(), pki: pki.clone(), side })?);
        }
        for worker in members.doors.iter_mut().chain(&mut members.loads) {
            if let Err(problem) = worker.report() {
                let log = std::fs::read_to_string(dir.join("m1.log")).unwrap_or_default();
                return Err(problem.context(log));
            }
        }
        Ok(members)
    }

    /// Gives each member its order, at the same time; none for one that has nothing to do.
    pub fn order(&mut self, orders: &[Option<Order>]) -> anyhow::Result<()> {
        for (load, order) in self.loads.iter_mut().zip(orders) {
            if let Some(order) = order {
                load.send(order)?;
            }
        }
        Ok(())
    }

    /// The answer of one member to its last order.
    pub fn report(&mut self, member: usize) -> anyhow::Result<Report> {
        self.loads[member].report()
    }

    /// Gives all the same order and waits for the answers.
    pub fn all(&mut self, order: impl Fn(usize) -> Order) -> anyhow::Result<Vec<Report>> {
        let orders: Vec<Option<Order>> = (0..MEMBERS).map(|n| Some(order(n))).collect();
        self.order(&orders)?;
        (0..MEMBERS).map(|n| self.report(n)).collect()
    }

    /// Which member leads.
    pub fn leader(&mut self) -> anyhow::Result<usize> {
        let leads = self.all(|_| Order::Leads)?;
        leads.iter().position(|r| matches!(r, Report::Leads(true))).context("no member leads")
    }

    /// The process of a member itself.
    fn pid(&self, member: usize) -> u32 {
        let served = self.servers.get(member).or(self.doors.get(member).map(|door| &door.process));
        served.unwrap_or(&self.loads[member].process).0.id()
    }

    /// Sends a signal to a member's process.
    pub fn signal(&self, member: usize, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(self.pid(member) as i32), signal)?)
    }

    /// The members' resident memory in megabytes.
    pub fn resident_mb(&self) -> anyhow::Result<Vec<f64>> {
        (0..MEMBERS).map(|n| resident_mb(self.pid(n))).collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "certificates are valid from now on")]
fn certificates(pki: &Path, names: &[String], ip: impl Fn(usize) -> Ipv4Addr) -> anyhow::Result<()> {
    let now = SystemTime::now();
    let authority = Authority::create("bench", now)?;
    authority.trust()?.save(pki)?;
    for (n, name) in names.iter().enumerate() {
        let address = IpAddr::V4(ip(n));
        let host = HostNames {
            name: name.clone(),
            address,
            virtual_address: address,
            first_service_address: address,
        };
        authority.host_identity(&host, now)?.save(pki, name)?;
    }
    Ok(())
}

fn start_worker(setup: &Setup) -> anyhow::Result<Worker> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg("member")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (orders, reports) = (child.stdin.take(), child.stdout.take());
    let process = Process(child);
    let (orders, reports) = orders.zip(reports).context("a process without pipes")?;
    let mut worker = Worker { process, orders, reports: BufReader::new(reports) };
    worker.send(setup)?;
    Ok(worker)
}

/// etcd with its defaults (heartbeat 100 ms, election 1 s, fsync on) and TLS on both ports.
fn start_etcd(
    name: &str,
    ip: Ipv4Addr,
    peers: &BTreeMap<String, SocketAddr>,
    pki: &Path,
    dir: &Path,
) -> anyhow::Result<Process> {
    let cluster: Vec<String> =
        peers.iter().map(|(name, address)| format!("{name}=https://{address}")).collect();
    let log = File::create(dir.join(format!("{name}.log")))?;
    let peer_url = format!("https://{ip}:{PEER_PORT}");
    let client_url = format!("https://{ip}:{CLIENT_PORT}");
    let (certificate, key) = (pki.join(format!("{name}.crt")), pki.join(format!("{name}.key")));
    let mut command = Command::new("etcd");
    command
        .args(["--name", name, "--initial-cluster", &cluster.join(","), "--initial-cluster-state", "new"])
        .args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url])
        .args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url])
        .args(["--client-cert-auth", "--peer-client-cert-auth", "--log-level", "warn", "--logger", "zap"])
        .arg("--data-dir")
        .arg(dir.join(name));
    for prefix in ["--", "--peer-"] {
        command.arg(format!("{prefix}cert-file")).arg(&certificate);
        command.arg(format!("{prefix}key-file")).arg(&key);
        command.arg(format!("{prefix}trusted-ca-file")).arg(pki.join("ca.crt"));
    }
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    Ok(Process(child.context("can't start etcd")?))
}
