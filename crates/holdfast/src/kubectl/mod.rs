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
use std::path::PathBuf;

use client::{Client, Kubeconfig};

pub use apply::{Args as ApplyArgs, apply};
pub use delete::{Args as DeleteArgs, delete};
pub use describe::{Args as DescribeArgs, describe};
pub use exec::{Args as ExecArgs, exec};
pub use get::{Args as GetArgs, get};
pub use logs::{Args as LogsArgs, logs};
pub use scale::{Args as ScaleArgs, scale};
pub use version::{Args as VersionArgs, version};

/// Which cluster: the one of this kubeconfig.
#[derive(Debug, Clone, clap::Args)]
pub struct KubeconfigArg {
    /// The kubeconfig file [default: $KUBECONFIG, else that of a cluster started here, else /etc/holdfast/admin.conf, else ~/.kube/config]
    #[arg(long, value_name = "FILE", global = true)]
    pub kubeconfig: Option<PathBuf>,
}

impl KubeconfigArg {
    /// Where the kubeconfig lies that is named, or meant where none is.
    pub fn path(&self) -> anyhow::Result<PathBuf> {
        let of_up = crate::default_dir().map(|dir| dir.join("kubeconfig"));
        let own: Vec<PathBuf> = of_up.into_iter().chain([crate::install::usual_kubeconfig()]).collect();
        Ok(Kubeconfig::find(self.kubeconfig.as_deref(), &own)?)
    }

    /// What it says.
    pub fn load(&self) -> anyhow::Result<Kubeconfig> {
        Ok(Kubeconfig::load(&self.path()?)?)
    }

    /// A client for it.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.load()?)?)
    }
}

/// Which cluster, and which namespace in it.
#[derive(Debug, Clone, clap::Args)]
pub struct Connection {
    /// Which cluster.
    #[command(flatten)]
    pub cluster: KubeconfigArg,
    /// The namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
}

impl Connection {
    /// The client, and the namespace that is meant.
    fn open(&self) -> anyhow::Result<(Client, String)> {
        let client = self.cluster.client()?;
        let namespace = self.namespace.clone().unwrap_or_else(|| client.namespace().to_owned());
        Ok((client, namespace))
    }
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
