//! What a command is about: `pods`, `pods,services`, `pod web-1`, `pod/web-1 service/web`.

use anyhow::bail;
use client::{Client, Discovery, Resource};

use super::Connection;

/// One resource, and which of its objects: all where none is named.
#[derive(Debug, Clone, PartialEq)]
pub struct Target {
    pub resource: Resource,
    pub names: Vec<String>,
}

/// Which objects a command is to show.
#[derive(Debug, clap::Args)]
pub struct Selection {
    /// What: TYPE, TYPE NAME..., TYPE,TYPE or TYPE/NAME...
    #[arg(required = true, value_name = "TYPE[/NAME]")]
    pub what: Vec<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub all_namespaces: bool,
    /// Only objects with these labels, such as app=web
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

/// What was selected, and where.
pub struct Selected {
    pub client: Client,
    /// The namespace that is meant, unless all are.
    pub namespace: String,
    pub targets: Vec<Target>,
}

impl Selection {
    /// Asks the cluster what these words mean.
    pub async fn ask(&self) -> anyhow::Result<Selected> {
        let (client, namespace) = self.connection.open()?;
        let targets = targets(&self.what, &Discovery::ask(&client).await?)?;
        if self.all_namespaces && targets.iter().any(|target| !target.names.is_empty()) {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        Ok(Selected { client, namespace, targets })
    }
}

/// Reads the words of a command line.
pub fn targets(words: &[String], discovery: &Discovery) -> anyhow::Result<Vec<Target>> {
    let Some((first, rest)) = words.split_first() else {
        bail!("say what: a type of resource such as `pods`, or TYPE/NAME");
    };
    if words.iter().any(|w| w.contains('/')) {
        let mut found: Vec<Target> = Vec::new();
        for word in words {
            let Some((kind, name)) = word.split_once('/').filter(|(k, n)| !k.is_empty() && !n.is_empty())
            else {
                bail!(
                    "there is no need to specify a resource type as a separate argument when passing \
                       arguments in resource/name form: say TYPE NAME... or TYPE/NAME... (not {word:?})"
                );
            };
            let resource = discovery.find(kind)?.clone();
            match found.last_mut().filter(|t| t.resource == resource) {
                Some(target) => target.names.push(name.to_owned()),
                None => found.push(Target { resource, names: vec![name.to_owned()] }),
            }
        }
        return Ok(found);
    }
    let mut resources: Vec<Resource> = Vec::new();
    for word in first.split(',').filter(|w| !w.is_empty()) {
        let of_category = discovery.category(word);
        match of_category.is_empty() {
            true => resources.push(discovery.find(word)?.clone()),
            false => resources.extend(of_category.into_iter().cloned()),
        }
    }
    if resources.is_empty() {
        bail!("say what: a type of resource such as `pods`, or TYPE/NAME");
    }
    Ok(resources.into_iter().map(|resource| Target { resource, names: rest.to_vec() }).collect())
}
