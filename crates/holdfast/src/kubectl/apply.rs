//! `apply`: manifests into the cluster.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use client::{Discovery, documents};
use serde_json::Value;

use super::{Connection, complaint, put};
use crate::tell::say;

/// Arguments of `apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  holdfast apply -f app.yaml\n  holdfast apply -f folder/ -n shop\n  cat app.yaml | holdfast apply -f -"
)]
pub struct Args {
    /// A manifest, a folder of manifests, or - for what is typed in
    #[arg(short, long, required = true, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

/// Creates or changes every object of the manifests. An object that fails does not keep the others from it.
pub async fn apply(args: Args) -> anyhow::Result<()> {
    let manifests = read_all(&args.filename)?;
    let (client, namespace) = args.connection.open()?;
    let discovery = Discovery::ask(&client).await?;
    let mut failed = None;
    for (origin, object) in manifests {
        let outcome = match check_namespace(&object, args.connection.namespace.as_deref()) {
            Ok(()) => client::apply(&client, &discovery, &object, &namespace).await.map_err(Into::into),
            Err(error) => Err(error),
        };
        match outcome {
            Ok(applied) => {
                for warning in applied.warnings {
                    say!("Warning: {warning}");
                }
                put(&format!("{} {}\n", applied.name, applied.outcome))?;
            }
            Err(error) => {
                if let Some(earlier) = failed.replace(said(error, &origin)) {
                    say!("{}", complaint(&earlier));
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// With the file, where the error is about what stands in it.
fn said(error: anyhow::Error, origin: &str) -> anyhow::Error {
    match error.downcast_ref::<client::Error>() {
        Some(client::Error::Server(status)) if status.code == 400 => {
            let message = status.message.clone();
            anyhow::anyhow!("{origin}: {message}")
        }
        Some(client::Error::NoKind { .. }) => error.context(origin.to_owned()),
        _ => error,
    }
}

fn check_namespace(object: &Value, asked: Option<&str>) -> anyhow::Result<()> {
    let own = object.pointer("/metadata/namespace").and_then(Value::as_str).filter(|n| !n.is_empty());
    match (own, asked) {
        (Some(own), Some(asked)) if own != asked => bail!(
            "the namespace from the provided object {own:?} does not match the namespace {asked:?}. \
             You must pass '--namespace={own}' to perform this operation."
        ),
        _ => Ok(()),
    }
}

/// The objects of all files, with the file of each. A folder stands for its manifests, in order.
pub fn read_all(files: &[PathBuf]) -> anyhow::Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for file in files {
        for path in manifests(file)? {
            let origin = if path == Path::new("-") { "stdin".into() } else { path.display().to_string() };
            let text = if path == Path::new("-") {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).context("cannot read the manifest from stdin")?;
                text
            } else {
                std::fs::read_to_string(&path)
                    .with_context(|| format!("cannot read the manifest {origin}"))?
            };
            all.extend(documents(&text, &origin)?.into_iter().map(|object| (origin.clone(), object)));
        }
    }
    if all.is_empty() {
        bail!("no objects passed to apply: the manifests are empty");
    }
    Ok(all)
}

fn manifests(file: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let entries =
        std::fs::read_dir(file).with_context(|| format!("cannot read the folder {}", file.display()))?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read the folder {}", file.display()))?.path();
        let is_manifest = path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json");
        if is_manifest && path.is_file() {
            found.push(path);
        }
    }
    if found.is_empty() {
        bail!("the folder {} has no manifest: files that end in .yaml, .yml or .json", file.display());
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_its_manifests() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, object: &str| {
            let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {object}}}\n");
            std::fs::write(dir.path().join(name), text).unwrap();
        };
        assert!(read_all(&[dir.path().to_owned()]).unwrap_err().to_string().contains("has no manifest"));
        write("b.yaml", "b");
        write("a.yml", "a");
        write("readme.txt", "c");
        let names: Vec<_> = read_all(&[dir.path().to_owned()])
            .unwrap()
            .into_iter()
            .map(|(_, object)| object["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["a", "b"]);
        let gone = read_all(&[dir.path().join("gone.yaml")]).unwrap_err();
        assert!(format!("{gone:#}").contains("gone.yaml"));
    }
}
