//! Where first processes say that they are there: a pipe with a name, in a folder that every container sees.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use nix::sys::stat::Mode;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::{OpenOptions, Receiver};

/// The folder's place in a container.
pub const INSIDE: &str = "/up";
const PIPE: &str = "pipe";
/// Longer than any start should take; one that takes longer has failed.
const LONGEST: Duration = Duration::from_secs(120);

/// Hears the first words.
pub struct FirstWords {
    folder: PathBuf,
    lines: BufReader<Receiver>,
}

/// What a container does: it says a word, and idles.
pub fn script() -> String {
    format!("echo up > {INSIDE}/{PIPE}; exec sleep 1000000")
}

impl FirstWords {
    /// Makes the folder, and listens.
    pub fn listen(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let path = folder.join(PIPE);
        nix::unistd::mkfifo(&path, Mode::S_IRWXU)?;
        // For both: so it isn't over when nobody writes.
        let pipe = OpenOptions::new().read_write(true).open_receiver(&path)?;
        Ok(FirstWords { folder: folder.to_owned(), lines: BufReader::new(pipe) })
    }

    /// The folder that containers are to see at [`INSIDE`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until as many more have spoken.
    pub async fn until(&mut self, count: usize) -> anyhow::Result<()> {
        for heard in 0..count {
            let mut line = String::new();
            let read = tokio::time::timeout(LONGEST, self.lines.read_line(&mut line));
            let read =
                read.await.with_context(|| format!("{heard} of {count} containers started in time"))??;
            anyhow::ensure!(read > 0, "the containers' pipe ended");
        }
        Ok(())
    }
}
