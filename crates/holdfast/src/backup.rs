//! `holdfast backup`: the whole state of a running cluster as one file.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use client::{Client, Stream};
use store::Backup;
use tempfile::NamedTempFile;

/// Arguments of `holdfast backup`.
#[derive(clap::Args)]
pub struct Args {
    /// The file to write; one that is there is replaced once the new one is whole
    file: PathBuf,
    /// The kubeconfig file [default: $KUBECONFIG, else that of a cluster started here, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
}

/// Fetches a backup.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = crate::kubectl::client(args.kubeconfig.as_deref())?;
    let Args { file, .. } = args;
    let backup = fetch(&client, &file).await?;
    let (keys, revision) = (backup.keys().len(), backup.revision());
    eprintln!("{}: {keys} keys at revision {revision}, Secrets among them: keep it safe", file.display());
    Ok(())
}

async fn fetch(client: &Client, path: &Path) -> anyhow::Result<Backup> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let failed = || format!("can't write {}", path.display());
    let mut stream = client.stream("/holdfast/backup", Some("*/*")).await?;
    // For its owner's eyes alone, as all temporary files are.
    let mut new = NamedTempFile::new_in(folder).with_context(failed)?;
    copy(&mut stream, &mut new, &failed).await?;
    new.as_file().sync_all().with_context(failed)?;
    let bytes = std::fs::read(new.path()).with_context(failed)?;
    let backup = Backup::decode(bytes.into()).context("what the server sent is no whole backup")?;
    new.persist(path).map_err(|refused| refused.error).with_context(failed)?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).with_context(failed)?;
    Ok(backup)
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
