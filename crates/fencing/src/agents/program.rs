//! An agent as a process.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use tracing::info_span;

use super::secrets;

/// Where agents find the programs that they use.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of what an agent complains of is kept, in bytes: its end.
const KEPT: usize = 4096;
/// How much of that is repeated, in characters.
const TOLD: usize = 200;
/// How long what an agent has said is waited for after its end.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// What `on` and `off` answer by when it is done (`FenceAgentAPI.md`).
const DONE: i32 = 0;
/// What `status` answers by when the machine is off. Agents answer so, too, to arguments that they can't take: so it counts only after `off` was done with
/// the same.
const IS_OFF: i32 = 2;

/// Why an agent hasn't done what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// Its secret parameters can't be had.
    #[error("its secrets can't be read from {path}: {why}")]
    Secrets {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It can't be run.
    #[error("{program} can't be run: {why}; is the package fence-agents installed?")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// It took too long, and was killed.
    #[error("`{action}` took longer than {after:?}, and was killed")]
    Slow {
        /// What it was to do.
        action: &'static str,
        /// How long it had.
        after: Duration,
    },
    /// It failed.
    #[error("`{action}` failed{}", after_colon(says))]
    Failed {
        /// What it was to do.
        action: &'static str,
        /// What it said last, without secrets.
        says: String,
    },
    /// It said that it had done it, and then that it isn't so.
    #[error("`off` was done, and `status` doesn't say that the machine is off{}", after_colon(says))]
    Not {
        /// What it said last, without secrets.
        says: String,
    },
}

fn after_colon(says: &str) -> String {
    if says.is_empty() { String::new() } else { format!(": {says}") }
}

/// The fence agent of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// The program.
    pub program: PathBuf,
    /// Its parameters besides what to do.
    pub parameters: BTreeMap<String, String>,
    /// The file with more of that, which nobody is to see.
    pub secrets: Option<PathBuf>,
    /// How long each of its runs may take.
    pub timeout: Duration,
}

impl Agent {
    /// Switches the machine off, and returns once the agent says that it is off.
    ///
    /// # Errors
    /// If it isn't, or that isn't known.
    pub async fn off(&self) -> Result<(), Problem> {
        let (code, says) = self.run("off").await?;
        if code != Some(DONE) {
            return Err(Problem::Failed { action: "off", says });
        }
        match self.run("status").await? {
            (Some(IS_OFF), _) => Ok(()),
            (_, says) => Err(Problem::Not { says }),
        }
    }

    /// Switches the machine on.
    ///
    /// # Errors
    /// If the agent couldn't.
    pub async fn on(&self) -> Result<(), Problem> {
        match self.run("on").await? {
            (Some(DONE), _) => Ok(()),
            (_, says) => Err(Problem::Failed { action: "on", says }),
        }
    }

    /// Has it do something; answers its exit code, and what it said last.
    async fn run(&self, action: &'static str) -> Result<(Option<i32>, String), Problem> {
        let secrets = self.read_secrets().await?;
        let mut input = format!("action={action}\n");
        // A string takes everything.
        for (name, value) in &self.parameters {
            let _ = writeln!(input, "{name}={value}");
        }
        for (name, value) in &secrets {
            let _ = writeln!(input, "{name}={value}");
        }
        let started = |why| Problem::Start { program: self.program.clone(), why };
        let mut command = Command::new(&self.program);
        // In a group of its own, which is killed as a whole.
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(started)?;
        let mut said = Vec::new();
        let ended = timeout(self.timeout, talk(&mut child, input, &mut said)).await;
        // Of a line whose beginning is lost nobody knows what is a secret.
        if said.len() >= KEPT {
            let rest = said.iter().position(|byte| *byte == b'\n').map_or(said.len(), |end| end + 1);
            said.drain(..rest);
        }
        let text = String::from_utf8_lossy(&said);
        let last = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let masked = secrets::masked(last, &secrets);
        let says = masked.chars().filter(|c| !c.is_control()).take(TOLD).collect();
        match ended {
            Ok(code) => Ok((code.map_err(started)?, says)),
            Err(_) => {
                if let Some(group) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
                }
                // What was killed ends, unless it waits for a disk; then it is buried later.
                let _ = timeout(LAST_WORDS, child.wait()).await;
                Err(Problem::Slow { action, after: self.timeout })
            }
        }
    }

    async fn read_secrets(&self) -> Result<Vec<(String, String)>, Problem> {
        let Some(path) = self.secrets.clone() else { return Ok(Vec::new()) };
        let failed = |path: PathBuf, why| Problem::Secrets { path, why };
        let place = path.clone();
        match tasks::blocking(info_span!("read secrets"), move || secrets::read(&place)).await {
            Ok(Ok(secrets)) => Ok(secrets),
            Ok(Err(why)) => Err(failed(path, why)),
            Err(ended) => Err(failed(path, io::Error::other(ended))),
        }
    }
}

/// Tells an agent what to do, and hears it until it has ended.
async fn talk(child: &mut Child, input: String, said: &mut Vec<u8>) -> io::Result<Option<i32>> {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let Some(mut stderr) = stderr else { return Err(io::Error::other("nobody hears it")) };
    let tell = async move {
        if let Some(mut stdin) = stdin {
            // One that reads nothing ends by itself, or is killed.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    let both = async {
        tokio::join!(tell, hear(&mut stderr, said));
    };
    let ended = tokio::select! {
        ended = child.wait() => ended?,
        () = both => child.wait().await?,
    };
    // What it has said and nobody has heard yet; what it has left behind may say more, and isn't waited for.
    let _ = timeout(LAST_WORDS, hear(&mut stderr, said)).await;
    Ok(ended.code())
}

/// Keeps the end of what is said.
async fn hear(from: &mut (impl AsyncRead + Unpin), said: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        said.extend_from_slice(&buffer[..count]);
        let excess = said.len().saturating_sub(KEPT);
        said.drain(..excess);
    }
}
