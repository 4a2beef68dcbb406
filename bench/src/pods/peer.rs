//! The peer: containerd with runc, asked by its own `ctr`, which Debian has (it has no `crictl`). What it starts is less than a
//! pod: a container, without a sandbox of its own beside it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::first_words::{INSIDE, script};
use super::{Runner, image};

/// How often, and how many times, one that is just coming up is asked.
const TRIES: (Duration, u32) = (Duration::from_millis(50), 400);
/// What holds one container each.
const SHIM: &str = "containerd-shim";

/// What is measured beside, if all of it is installed.
pub fn installed() -> Option<String> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Some(text.lines().next().unwrap_or_default().to_owned())
    };
    let (containerd, runc, _) = (version("containerd")?, version("runc")?, version("ctr")?);
    Some(format!("{containerd}; {runc}; by ctr"))
}

/// A containerd with its data in a folder of ours; it ends, with its containers, when dropped.
pub struct Peer {
    process: Child,
    socket: PathBuf,
    words: PathBuf,
    started: Mutex<Vec<String>>,
}

impl Peer {
    /// Starts one with the image. Its containers see the folder `words`.
    pub async fn start(dir: &Path, archive: &Path, words: &Path) -> anyhow::Result<Self> {
        let dir = dir.join("containerd");
        std::fs::create_dir_all(&dir)?;
        let (socket, config) = (dir.join("containerd.sock"), dir.join("config.toml"));
        let text = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            dir.join("root"),
            dir.join("state"),
            socket
        );
        std::fs::write(&config, text)?;
        let log = std::fs::File::create(dir.join("log"))?;
        let mut command = Command::new("containerd");
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().context("can't start containerd")?;
        let peer = Peer { process, socket, words: words.to_owned(), started: Mutex::default() };
        let (rest, tries) = TRIES;
        for _ in 0..tries {
            if peer.ctr(&["version"]).await.is_ok() {
                peer.ctr(&["images", "import", &archive.display().to_string()]).await?;
                return Ok(peer);
            }
            tokio::time::sleep(rest).await;
        }
        let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
        anyhow::bail!("containerd doesn't answer: {log}")
    }

    async fn ctr(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = tokio::process::Command::new("ctr");
        let output =
            command.arg("--address").arg(&self.socket).args(args).stdin(Stdio::null()).output().await?;
        ensure!(output.status.success(), "ctr {}: {}", args[0], String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Runner for Peer {
    async fn start(&self, name: &str) -> anyhow::Result<()> {
        if let Ok(mut started) = self.started.lock() {
            started.push(name.to_owned());
        }
        let mount = format!("type=bind,src={},dst={INSIDE},options=rbind:rw", self.words.display());
        let script = script();
        self.ctr(&["run", "--detach", "--null-io", "--mount", &mount, image::NAME, name, "sh", "-c", &script])
            .await
    }

    fn daemon(&self) -> anyhow::Result<u32> {
        Ok(self.process.id())
    }

    fn shims(&self) -> anyhow::Result<Vec<u32>> {
        let socket = self.socket.display().to_string();
        crate::process::all(|words| {
            words.first().is_some_and(|word| word.contains(SHIM)) && words.contains(&socket)
        })
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Its containers outlive it otherwise.
        let started = self.started.lock().map(|names| names.clone()).unwrap_or_default();
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["tasks", "rm", "--force"]).args(started);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
