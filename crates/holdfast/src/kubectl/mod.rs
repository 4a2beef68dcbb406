//! `get`, `describe`, `apply`, `delete`, `exec`, `logs`, `scale`, `version`: a thin client in kubectl's words, for machines without kubectl.

mod apply;
mod delete;
mod describe;
mod exec;
mod get;
mod jsonpath;
mod logs;
mod output;
mod pods_of;
mod scale;
mod sort;
mod table;
mod target;
mod version;

use std::io::Write;
use std::path::{Path, PathBuf};

use client::{Client, Kubeconfig};

pub use apply::{Args as ApplyArgs, apply};
pub use delete::{Args as DeleteArgs, delete};
pub use describe::{Args as DescribeArgs, describe};
pub use exec::{Args as ExecArgs, exec};
pub use get::{Args as GetArgs, get};
pub use logs::{Args as LogsArgs, logs};
pub use scale::{Args as ScaleArgs, scale};
pub use version::{Args as VersionArgs, version};

/// Which cluster, and which namespace in it.
#[derive(Debug, Clone, clap::Args)]
pub struct Connection {
    /// The kubeconfig file [default: $KUBECONFIG, else that of a cluster started here, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl Connection {
    /// The client, and the namespace that is meant.
    fn open(&self) -> anyhow::Result<(Client, String)> {
        let client = client(self.kubeconfig.as_deref())?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
        Ok((client, namespace))
    }
}

/// The client for a kubeconfig, or for the one that is meant where none is named.
pub fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    Ok(Client::new(&kubeconfig_of(kubeconfig)?)?)
}

/// The kubeconfig that is named, or meant.
pub fn kubeconfig_of(named: Option<&Path>) -> anyhow::Result<Kubeconfig> {
    Ok(Kubeconfig::load(&kubeconfig_path(named)?)?)
}

/// Where it lies.
pub fn kubeconfig_path(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let of_up = crate::default_dir().map(|dir| dir.join("kubeconfig"));
    let own: Vec<PathBuf> = of_up.into_iter().chain([crate::install::usual_kubeconfig()]).collect();
    Ok(Kubeconfig::find(named, &own)?)
}

/// An error as kubectl says it: what the server said as it is, everything else after `error: `.
pub fn complaint(error: &anyhow::Error) -> String {
    match error.downcast_ref::<client::Error>() {
        Some(client::Error::Server(status)) => status.to_string(),
        _ => format!("error: {error:#}"),
    }
}

/// Writes to stdout. A reader that has gone away (`| head`) ends the program in silence, as it does others.
pub fn put(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}
