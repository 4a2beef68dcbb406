//! The way an owner asks for a Service: through `kubectl proxy`.

use crate::probe::{AskFn, fresh};
use client::{Client, Kubeconfig};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A `kubectl proxy` under way. Dropping it ends it.
pub(crate) struct OwnersProxy {
    client: Client,
    _child: Child,
}

impl OwnersProxy {
    /// Starts one; none where there is no kubectl, or it does not serve.
    pub(crate) async fn start(kubeconfig: &Path) -> Option<Self> {
        let mut child = Command::new("kubectl")
            .args(["proxy", "--port", "0", "--kubeconfig"])
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .ok()?;
        let mut lines = BufReader::new(child.stdout.take()?).lines();
        let line = tokio::time::timeout(Duration::from_secs(10), lines.next_line()).await.ok()?.ok()??;
        // `Starting to serve on 127.0.0.1:43210`
        let address = line.rsplit(' ').next()?;
        let client = Client::new(&Kubeconfig::anonymous(format!("http://{address}"))).ok()?;
        Some(OwnersProxy { client, _child: child })
    }

    /// Asks for a path of the API through it.
    pub(crate) fn ask(&self, path: String) -> AskFn {
        fresh(&self.client, path)
    }
}
