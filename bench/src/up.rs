//! A cluster by `holdfast up`, as people start it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A cluster in the foreground of a process of its own; ended when dropped.
pub struct Up {
    process: Child,
    dir: PathBuf,
}

impl Up {
    /// Starts one with its data in `dir`, which lives as long as it does.
    ///
    /// # Errors
    /// If the program can't be started.
    pub fn start(program: &Path, dir: &Path, args: &[&str]) -> anyhow::Result<Self> {
        let log = File::create(dir.join("up.log"))?;
        let process = Command::new(program)
            .args(["up", "--port", "0", "--dir"])
            .arg(dir.join("cluster"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Up { process, dir: dir.to_owned() })
    }

    /// How to reach it, once it is up.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("cluster/kubeconfig")
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("up.log")).unwrap_or_default()
    }

    /// The processes of its hosts.
    ///
    /// # Errors
    /// If the table of processes can't be read.
    pub fn hosts(&self) -> anyhow::Result<Vec<u32>> {
        self.processes("host")
    }

    /// The shims of its pods.
    ///
    /// # Errors
    /// If the table of processes can't be read.
    pub fn shims(&self) -> anyhow::Result<Vec<u32>> {
        self.processes("shim")
    }

    /// The processes of the program with that first argument, and one in this cluster's folder.
    fn processes(&self, first: &str) -> anyhow::Result<Vec<u32>> {
        crate::process::all(|words| {
            words.get(1).is_some_and(|word| word == first)
                && words.iter().skip(2).any(|word| Path::new(word).starts_with(&self.dir))
        })
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}
