//! Our side: a cluster of one host, asked by its API, so that a start is all that a user waits for.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use client::{Client, Kubeconfig};
use serde_json::json;

use super::first_words::{INSIDE, script};
use super::{Runner, image};
use crate::up::Up;

const PODS: &str = "/api/v1/namespaces/default/pods";
/// How often, and how many times, a cluster that is just coming up is asked.
const TRIES: (Duration, u32) = (Duration::from_millis(100), 600);

/// The cluster.
pub struct Ours {
    up: Up,
    client: Client,
    words: PathBuf,
}

impl Ours {
    /// Starts it with the image, and waits until it takes pods. They see the folder `words`.
    pub async fn start(dir: &Path, archive: &Path, words: &Path) -> anyhow::Result<Self> {
        let archive = archive.display().to_string();
        let up = Up::start(&crate::program()?, dir, &["--nodes", "1", "--image", &archive])?;
        let (rest, tries) = TRIES;
        for _ in 0..tries {
            if let Some(client) = ready(&up).await {
                return Ok(Ours { up, client, words: words.to_owned() });
            }
            tokio::time::sleep(rest).await;
        }
        anyhow::bail!("the cluster didn't come up: {}", up.log())
    }
}

/// A client of the cluster, once a pod finds there all that it needs: a node that is ready, and its account.
async fn ready(up: &Up) -> Option<Client> {
    let client = Client::new(&Kubeconfig::load(&up.kubeconfig()).ok()?).ok()?;
    client.get("/api/v1/namespaces/default/serviceaccounts/default").await.ok()?;
    let nodes = client.get("/api/v1/nodes").await.ok()?;
    let is_ready = nodes["items"].as_array()?.iter().any(|node| {
        let conditions = node["status"]["conditions"].as_array();
        conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
    });
    is_ready.then_some(client)
}

impl Runner for Ours {
    async fn start(&self, name: &str) -> anyhow::Result<()> {
        let pod = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": name}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "main", "image": image::NAME, "command": ["sh", "-c", script()],
                "volumeMounts": [{"name": "up", "mountPath": INSIDE}]}],
            "volumes": [{"name": "up", "hostPath": {"path": self.words}}],
        }});
        self.client.create(PODS, &pod).await.map(drop).with_context(|| format!("pod {name}"))
    }

    fn daemon(&self) -> anyhow::Result<u32> {
        self.up.hosts()?.first().copied().context("the cluster has no host")
    }

    fn shims(&self) -> anyhow::Result<Vec<u32>> {
        self.up.shims()
    }
}
