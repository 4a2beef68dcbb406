//! The hosts that are measured: processes of their own with certificates of their own authority.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use pki::{Authority, HostNames};
use rustls::ClientConfig;
use tempfile::TempDir;

use super::host::Setup;
use crate::process::{cpu_seconds, resident_mb};

const PEER_PORT: u16 = 2380;
const API_PORT: u16 = 6443;
/// The files that a host may open.
const FILES: u64 = 65_536;

/// One or three hosts; they end, with their folder, when dropped.
pub struct Hosts {
    processes: Vec<Process>,
    /// Where each host's API listens.
    pub addresses: Vec<SocketAddr>,
    /// How the administrator connects.
    pub tls: Arc<ClientConfig>,
    _dir: TempDir,
}

/// A process that is killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended by itself needs no end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Hosts {
    /// Starts `count` hosts with their data in a new folder in `dir`; returns when each serves.
    pub fn start(count: usize, dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(count, dir, FILES, None)
    }

    /// Likewise, with the number of files that each may open, and with what stands behind services.
    #[allow(clippy::disallowed_methods, reason = "certificates are valid from now on")]
    pub fn start_with(
        count: usize,
        dir: &Path,
        files: u64,
        backend: Option<SocketAddr>,
    ) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("bench-api-").tempdir_in(dir)?;
        // Addresses of its own, so that hosts don't meet those of another run.
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let ip = |n: usize| Ipv4Addr::new(127, high | 0x80, low, 100 + n as u8);
        let names: Vec<String> = (1..=count).map(|n| format!("n{n}")).collect();
        let (pki, now) = (dir.path().join("pki"), SystemTime::now());
        let authority = Authority::create("bench", now)?;
        let trust = authority.trust()?;
        trust.save(&pki)?;
        for (n, name) in names.iter().enumerate() {
            let address = IpAddr::V4(ip(n));
            let host = HostNames {
                name: name.clone(),
                address,
                virtual_address: address,
                first_service_address: address,
            };
            authority.host_identity(&host, now)?.save(&pki, name)?;
        }
        let tls = authority.admin_identity(now)?.client_config(&trust, &[b"http/1.1"])?;
        let at = |n: usize, port: u16| SocketAddr::new(ip(n).into(), port);
        let mut started = Vec::new();
        for (n, name) in names.iter().enumerate() {
            let setup = Setup {
                name: name.clone(),
                pki: pki.clone(),
                peers: names.iter().enumerate().map(|(n, name)| (name.clone(), at(n, PEER_PORT))).collect(),
                data: dir.path().join(name),
                listen: at(n, API_PORT),
                backend,
                files,
            };
            // The shell sets the limit, where the machine allows it, and becomes the host.
            let mut child = Command::new("sh")
                .args(["-c", &format!("ulimit -n {files} 2>/dev/null; exec \"$0\" api-host")])
                .arg(std::env::current_exe()?)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let line = serde_json::to_string(&setup)? + "\n";
            child.stdin.as_mut().context("a process without pipes")?.write_all(line.as_bytes())?;
            let out = BufReader::new(child.stdout.take().context("a process without pipes")?);
            started.push((Process(child), out));
        }
        let mut processes = Vec::new();
        for (process, mut out) in started {
            let mut line = String::new();
            out.read_line(&mut line)?;
            anyhow::ensure!(line == "ready\n", "a host ended before it served");
            processes.push(process);
        }
        let addresses = (0..count).map(|n| at(n, API_PORT)).collect();
        Ok(Hosts { processes, addresses, tls, _dir: dir })
    }

    /// Starts a part of every host: [`super::host::SCHEDULER`] or [`super::host::CONTROLLERS`].
    pub fn start_part(&mut self, part: &str) -> anyhow::Result<()> {
        for process in &mut self.processes {
            let input = process.0.stdin.as_mut().context("a process without pipes")?;
            input.write_all(format!("{part}\n").as_bytes())?;
        }
        Ok(())
    }

    /// The process of the first host.
    pub fn first(&self) -> u32 {
        self.processes.first().map_or(0, |process| process.0.id())
    }

    /// The largest resident memory of a host in megabytes.
    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        let all = self.processes.iter().map(|process| resident_mb(process.0.id()));
        all.collect::<anyhow::Result<Vec<f64>>>().map(|all| all.into_iter().fold(0.0, f64::max))
    }

    /// The time that all hosts together spent on processors.
    pub fn cpu_seconds(&self) -> anyhow::Result<f64> {
        self.processes.iter().map(|process| cpu_seconds(process.0.id())).sum()
    }
}
