//! `delete`: objects out of the cluster.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use client::{Client, Discovery, Resource, with_query};
use serde_json::{Value, json};

use super::apply::read_all;
use super::target::targets;
use super::{Connection, complaint, put};
use crate::tell::say;

/// Between two looks whether an object is gone: a person doesn't notice it.
const LOOK: Duration = Duration::from_millis(100);

/// Arguments of `delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  holdfast delete pod web-1\n  holdfast delete -f app.yaml")]
pub struct Args {
    /// What: TYPE NAME... or TYPE/NAME...
    #[arg(value_name = "TYPE[/NAME]", required_unless_present = "filename", conflicts_with = "filename")]
    pub what: Vec<String>,
    /// The objects of a manifest, of a folder of manifests, or of what is typed in (-)
    #[arg(short, long, value_name = "FILE")]
    pub filename: Vec<PathBuf>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// All objects of the type
    #[arg(long)]
    pub all: bool,
    /// Only objects with these labels, such as app=web
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with = "all")]
    pub selector: Option<String>,
    /// Seconds that a pod has to end by itself
    #[arg(long, value_name = "SECONDS")]
    pub grace_period: Option<u32>,
    /// The same as --grace-period=1
    #[arg(long, conflicts_with = "grace_period")]
    pub now: bool,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, default_missing_value = "true", num_args = 0..=1, require_equals = true)]
    pub wait: bool,
    /// No error when an object is not there
    #[arg(long)]
    pub ignore_not_found: bool,
}

/// Deletes objects. One that fails does not keep the others from it.
pub async fn delete(args: Args) -> anyhow::Result<()> {
    let manifests = if args.filename.is_empty() { Vec::new() } else { read_all(&args.filename)? };
    let (client, namespace) = args.connection.open()?;
    let discovery = Discovery::ask(&client).await?;
    let mut doomed: Vec<(Resource, String, String)> = Vec::new();
    for (_, object) in manifests {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let resource = discovery.of_kind(text("/apiVersion"), text("/kind"))?.clone();
        let own = Some(text("/metadata/namespace")).filter(|n| !n.is_empty());
        doomed.push((resource, own.unwrap_or(&namespace).to_owned(), text("/metadata/name").to_owned()));
    }
    let words = if args.filename.is_empty() { targets(&args.what, &discovery)? } else { Vec::new() };
    for target in words {
        let mut names = target.names;
        if names.is_empty() {
            if !args.all && args.selector.is_none() {
                bail!(
                    "resource(s) were provided, but no name was specified: name them, or say --all or --selector"
                );
            }
            names = select(&client, &target.resource, &namespace, args.selector.as_deref()).await?;
        }
        doomed.extend(names.into_iter().map(|name| (target.resource.clone(), namespace.clone(), name)));
    }
    if doomed.is_empty() {
        put("No resources found\n")?;
    }
    let mut failed = None;
    let mut gone = Vec::new();
    for (resource, namespace, name) in doomed {
        let path = resource.path(Some(&namespace), Some(&name));
        // kubectl's default, `--cascade=background`: the object goes at once, what it owns is collected.
        let mut options =
            json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
        if let Some(seconds) = if args.now { Some(1) } else { args.grace_period } {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        match client.delete(&path, &options).await {
            Ok(answer) => {
                let of = if resource.group.is_empty() { resource.singular.clone() } else { resource.typed() };
                put(&format!("{of} {name:?} deleted\n"))?;
                gone.push((path, uid(&answer)));
            }
            Err(error) if args.ignore_not_found && error.is_not_found() => {}
            Err(error) => {
                if let Some(earlier) = failed.replace(error.into()) {
                    say!("{}", complaint(&earlier));
                }
            }
        }
    }
    if args.wait {
        for (path, uid) in gone {
            wait_until_gone(&client, &path, uid.as_deref()).await?;
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn select(
    client: &Client,
    resource: &Resource,
    namespace: &str,
    selector: Option<&str>,
) -> anyhow::Result<Vec<String>> {
    let path = resource.path(Some(namespace), None);
    let path = selector.map_or(path.clone(), |selector| with_query(&path, &[("labelSelector", selector)]));
    let list = client.get(&path).await?;
    let items = list["items"].as_array().cloned().unwrap_or_default();
    Ok(items.iter().filter_map(|i| i["metadata"]["name"].as_str().map(str::to_owned)).collect())
}

/// The uid of what was deleted: of the object, or of the `Status` that is answered instead.
fn uid(answer: &Value) -> Option<String> {
    let uid = answer.pointer("/metadata/uid").or_else(|| answer.pointer("/details/uid"))?;
    Some(uid.as_str()?.to_owned())
}

/// Until there is none, or another of its name.
async fn wait_until_gone(client: &Client, path: &str, uid: Option<&str>) -> anyhow::Result<()> {
    loop {
        match client.get(path).await {
            Err(error) if error.is_not_found() => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(object) => {
                let now = object.pointer("/metadata/uid").and_then(Value::as_str);
                if uid.is_some() && now != uid {
                    return Ok(());
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
