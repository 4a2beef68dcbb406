//! `holdfast backup`: the whole state of a running cluster as one file, once or again and again.

mod series;

use std::io::Write;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use client::{Client, Stream};
use jiff::SignedDuration;
use store::Backup;
use tempfile::NamedTempFile;

use self::series::Series;
use crate::kubectl::KubeconfigArg;
use crate::tell::{count, say};

/// Arguments of `holdfast backup`.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast backup state.backup\n  holdfast backup --every 6h --keep 28 --to /srv/backups    # until it is stopped\n  holdfast backup --keep 28 --to /srv/backups               # one now, for a timer of your own"
)]
pub struct Args {
    /// The file to write; one that is there is replaced once the new one is whole
    #[arg(required_unless_present = "to", conflicts_with = "to")]
    file: Option<PathBuf>,
    /// Write into this folder instead, a file each time; it is made if it isn't there
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Go on until it is stopped, with a backup whenever the newest in the folder is older than this
    #[arg(long, value_name = "TIME", requires = "to", value_parser = series::period)]
    every: Option<SignedDuration>,
    /// How many backups the folder keeps, the newest ones
    #[arg(long, value_name = "NUMBER", requires = "to", default_value_t = 28, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
    #[command(flatten)]
    cluster: KubeconfigArg,
}

/// Fetches a backup, or one after the other.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let Args { file, to, every, keep, cluster } = args;
    let client = || cluster.client();
    match (file, to) {
        (Some(file), _) => {
            check_replaceable(&file)?;
            let (backup, new) = fetch(&client()?, folder_of(&file)).await?;
            keep_as(new, &file)?;
            tell(&file, &backup);
            Ok(())
        }
        (None, Some(folder)) => Series { folder, keep: keep.into() }.run(&client, every).await,
        (None, None) => anyhow::bail!("say where to: a file, or a folder by --to"),
    }
}

fn tell(file: &Path, backup: &Backup) {
    let (keys, revision) = (count(backup.keys().len(), "key"), backup.revision());
    say!("{}: {keys} at revision {revision}, Secrets among them: keep it safe", file.display());
}

/// Whether a backup may take this place: a new file replaces what is there, and that must be nothing but a plain file.
fn check_replaceable(path: &Path) -> anyhow::Result<()> {
    let is = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("can't write {}", path.display())),
        Ok(there) if there.is_file() => return Ok(()),
        Ok(there) if there.is_dir() => "a folder",
        Ok(there) if there.is_symlink() => "a symbolic link",
        Ok(there) if there.file_type().is_fifo() => "a pipe",
        Ok(there) if there.file_type().is_socket() => "a socket",
        Ok(_) => "a device",
    };
    anyhow::bail!("{} is {is}, and a backup replaces plain files only; name a file", path.display())
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Fetches a backup into a new file in `folder`, and checks it there.
async fn fetch(client: &Client, folder: &Path) -> anyhow::Result<(Backup, NamedTempFile)> {
    let failed = || format!("can't write into {}", folder.display());
    let mut stream = client.stream("/holdfast/backup", Some("*/*")).await?;
    // For its owner's eyes alone, as all temporary files are.
    let new = tempfile::Builder::new().prefix(series::UNFINISHED).tempfile_in(folder);
    let mut new = new.with_context(failed)?;
    copy(&mut stream, &mut new, &failed).await?;
    new.as_file().sync_all().with_context(failed)?;
    // From the disk: what is checked is what will be restored, before it replaces a backup that is whole.
    let bytes = std::fs::read(new.path()).with_context(failed)?;
    let backup = Backup::decode(bytes.into()).context("what the server sent is no whole backup")?;
    Ok((backup, new))
}

/// Gives a backup that is whole its name.
fn keep_as(new: NamedTempFile, path: &Path) -> anyhow::Result<()> {
    let failed = || format!("can't write {}", path.display());
    // It may have become something else meanwhile.
    check_replaceable(path)?;
    new.persist(path).map_err(|refused| refused.error).with_context(failed)?;
    // The name lies in the folder: without this a power cut may still bring the former file back.
    std::fs::File::open(folder_of(path)).and_then(|folder| folder.sync_all()).with_context(failed)
}

async fn copy(
    stream: &mut Stream,
    file: &mut NamedTempFile,
    failed: &impl Fn() -> String,
) -> anyhow::Result<()> {
    while let Some(piece) = stream.chunk().await? {
        file.write_all(&piece).with_context(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_a_plain_file_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("plain"), "old").unwrap();
        std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("gone"), at("dangling")).unwrap();
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for good in ["plain", "new"] {
            check_replaceable(&at(good)).unwrap();
        }
        for (path, is) in [
            (at("link"), "a symbolic link"),
            (at("dangling"), "a symbolic link"),
            (at("fifo"), "a pipe"),
            (at("socket"), "a socket"),
            (dir.path().to_owned(), "a folder"),
            ("/dev/full".into(), "a device"),
        ] {
            let error = check_replaceable(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("is {is}")), "{error}");
        }
        assert!(check_replaceable(&at("plain/below")).is_err());
    }
}
