//! A cluster that runs elsewhere, of any Kubernetes: its hosts are cut and restored by commands of the user's own, or by fence
//! agents.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail, ensure};
use client::Client;
use drill::{BoxFuture, Fault, Happening};
use fencing::Agent;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Where a host's name belongs in a command.
const NODE: &str = "{node}";
/// How long a command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Who is a controller manager in kubeadm's clusters and k3s': its host leads, as far as one does.
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-controller-manager";

/// What cuts a host, and what restores it.
#[derive(Debug, Clone, clap::Args)]
pub struct Commands {
    /// With --kubeconfig: the command for `sh -c` that cuts a host, whose name is put in place of {node}
    #[arg(long, value_name = "COMMAND", requires = "kubeconfig", requires = "restore", value_parser = with_node)]
    pub cut: Option<String>,
    /// With --kubeconfig: the command that restores it
    #[arg(long, value_name = "COMMAND", requires = "kubeconfig", requires = "cut", value_parser = with_node)]
    pub restore: Option<String>,
    /// With --kubeconfig: the fence agents that switch hosts off and on instead, as `fencing` in a host's configuration names them
    #[arg(long, value_name = "FILE", requires = "kubeconfig", conflicts_with_all = ["cut", "restore"])]
    pub fence_agents: Option<PathBuf>,
}

impl Commands {
    /// What they name, if anything.
    pub fn means(self) -> anyhow::Result<Option<Means>> {
        if let Some(path) = self.fence_agents {
            let agents = read_agents(&path);
            let agents = agents.with_context(|| format!("no fence agents in {}", path.display()))?;
            return Ok(Some(Means::Agents(agents)));
        }
        Ok(self.cut.zip(self.restore).map(|(cut, restore)| Means::Commands { cut, restore }))
    }
}

/// What cuts hosts, and restores them.
#[derive(Debug)]
pub enum Means {
    /// Commands for `sh -c`.
    Commands {
        /// What cuts one.
        cut: String,
        /// What restores it.
        restore: String,
    },
    /// The hosts' fence agents.
    Agents(BTreeMap<String, Agent>),
}

/// A file with fence agents.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AgentsFile {
    agents: BTreeMap<String, config::FenceAgent>,
}

fn read_agents(path: &Path) -> anyhow::Result<BTreeMap<String, Agent>> {
    let text = std::fs::read(path)?;
    let file: AgentsFile = serde_json::from_value(values::from_yaml(&text)?)?;
    let said = config::Fencing { agents: file.agents, ..config::Fencing::default() };
    let mut findings = config::Findings::default();
    // No lease is counted beside them.
    said.check(Duration::MAX, &mut findings);
    if let Some(problem) = findings.problems.first() {
        bail!("{problem}");
    }
    let agent = |said: config::FenceAgent| Agent {
        program: said.program,
        parameters: said.parameters,
        secrets: said.secrets_file,
        timeout: said.timeout,
    };
    Ok(said.agents.into_iter().map(|(host, said)| (host, agent(said))).collect())
}

fn with_node(text: &str) -> Result<String, String> {
    match text.contains(NODE) {
        true => Ok(text.to_owned()),
        false => Err(format!("write {NODE} where the host's name belongs")),
    }
}

/// By which labels a Node is of the control plane: kubeadm's, k3s' and Holdfast's, and the one of before Kubernetes 1.20.
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];

/// The hosts of a cluster elsewhere.
pub struct Elsewhere {
    client: Client,
    hosts: Vec<String>,
    /// Those of them that are outside of the control plane.
    workers: Vec<String>,
    means: Means,
    /// Those that were cut and that nothing has restored.
    away: Mutex<BTreeSet<String>>,
}

impl Elsewhere {
    /// Asks the cluster for its hosts.
    pub async fn find(client: Client, means: Means) -> anyhow::Result<Self> {
        let nodes = client.get("/api/v1/nodes").await.context("can't ask the cluster for its nodes")?;
        let nodes = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
        let name = |node: &Value| node["metadata"]["name"].as_str().map(str::to_owned);
        let hosts: Vec<String> = nodes.iter().filter_map(name).collect();
        let workers = nodes.iter().filter(|node| is_worker(node)).filter_map(name).collect();
        ensure!(!hosts.is_empty(), "the cluster has no nodes");
        if let Some(strange) = hosts.iter().find(|host| !is_plain(host)) {
            bail!(
                "the node {strange:?} can't be named in a command: only letters, digits, dashes and dots can"
            );
        }
        if let Means::Agents(agents) = &means
            && let Some(host) = hosts.iter().find(|host| !agents.contains_key(host.as_str()))
        {
            bail!("the host {host} has no fence agent: name one for each host");
        }
        Ok(Elsewhere { client, hosts, workers, means, away: Mutex::default() })
    }

    /// Restores what is still cut.
    pub async fn restore_all(&self) -> anyhow::Result<()> {
        let away: Vec<String> = self.away().iter().cloned().collect();
        for host in away {
            self.restore(&host).await?;
        }
        Ok(())
    }

    /// Cuts a host. Returns when that began: it is done no earlier.
    async fn cut(&self, host: &str) -> anyhow::Result<SystemTime> {
        match &self.means {
            Means::Commands { cut, .. } => self.run(cut, host).await,
            Means::Agents(agents) => {
                let at = now();
                let ended = agent(agents, host)?.off().await;
                ended.with_context(|| format!("the fence agent of {host} hasn't switched it off"))?;
                Ok(at)
            }
        }
    }

    /// Restores it, likewise.
    async fn restore(&self, host: &str) -> anyhow::Result<SystemTime> {
        match &self.means {
            Means::Commands { restore, .. } => self.run(restore, host).await,
            Means::Agents(agents) => {
                let at = now();
                let ended = agent(agents, host)?.on().await;
                ended.with_context(|| format!("the fence agent of {host} hasn't switched it on"))?;
                Ok(at)
            }
        }
    }

    fn away(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command for a host. Returns when it began: what it does is done no earlier.
    async fn run(&self, command: &str, host: &str) -> anyhow::Result<SystemTime> {
        let line = command.replace(NODE, host);
        let at = now();
        // Whatever it says is for the user, and must not get into a report.
        let mut child = Command::new("sh");
        child.arg("-c").arg(&line).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let status = tokio::time::timeout(LIMIT, child.status()).await;
        let status =
            status.with_context(|| format!("{line:?} has not ended within {} s", LIMIT.as_secs()))??;
        ensure!(status.success(), "{line:?} failed ({status})");
        Ok(at)
    }
}

impl drill::Site for Elsewhere {
    fn hosts(&self) -> Vec<String> {
        self.hosts.clone()
    }

    fn workers(&self) -> Vec<String> {
        self.workers.clone()
    }

    fn net(&self) -> &str {
        "elsewhere"
    }

    fn api_address(&self, _: &str) -> Option<String> {
        None
    }

    fn can(&self, fault: Fault) -> Result<(), String> {
        match fault {
            // A rollout's host is switched off by the same command.
            Fault::Command | Fault::PowerOff => Ok(()),
            _ => Err("hosts elsewhere are broken by --cut or --fence-agents alone".into()),
        }
    }

    fn inject<'a>(&'a self, host: &'a str, _: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        Box::pin(async move {
            // Also if the command fails: half of it may be done.
            self.away().insert(host.to_owned());
            self.cut(host).await
        })
    }

    fn heal<'a>(&'a self, host: &'a str, _: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        Box::pin(async move {
            let at = self.restore(host).await?;
            self.away().remove(host);
            Ok(at)
        })
    }

    fn leader<'a>(&'a self) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        Box::pin(async move {
            let lease = self.client.get(LEASE).await;
            let lease = lease
                .context("nothing says who leads this cluster: name a host by --target, or take each")?;
            Ok(holder(&lease, &self.hosts))
        })
    }

    fn leader_holds_address(&self) -> bool {
        false
    }

    fn timeline(&self) -> UnboundedReceiver<Happening> {
        unbounded_channel().1
    }
}

fn agent<'a>(agents: &'a BTreeMap<String, Agent>, host: &str) -> anyhow::Result<&'a Agent> {
    agents.get(host).with_context(|| format!("the host {host} has no fence agent"))
}

/// The host of a Lease's holder, whose identity is the host's name and something that no other process has.
fn holder(lease: &Value, hosts: &[String]) -> Option<String> {
    let holder = lease["spec"]["holderIdentity"].as_str()?;
    let host = holder.split('_').next()?;
    hosts.iter().find(|known| *known == host).cloned()
}

/// Whether a Node is outside of the control plane.
fn is_worker(node: &Value) -> bool {
    CONTROL_PLANE.iter().all(|label| node["metadata"]["labels"].get(label).is_none())
}

/// A shell takes it for nothing but what it is, quoted or not, and a command for no option.
fn is_plain(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '.';
    name.len() <= 253
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.chars().all(is_plain)
}

#[allow(clippy::disallowed_methods, reason = "a site says when it did something")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use drill::Site;
    use serde_json::json;

    use super::*;

    #[test]
    fn only_plain_names_get_into_a_command() {
        for plain in ["n1", "ip-10-0-0-1.eu-west-1.compute.internal", "0a"] {
            assert!(is_plain(plain), "{plain}");
        }
        for strange in ["", "-n1", "n1;reboot", "$(reboot)", "n 1", "n1'", "n1\n", "né", &"x".repeat(254)] {
            assert!(!is_plain(strange), "{strange:?}");
        }
    }

    #[test]
    fn a_lease_says_who_leads() {
        let hosts = ["cp-1".to_owned(), "cp-2".to_owned()];
        let held = |by: &str| holder(&json!({"spec": {"holderIdentity": by}}), &hosts);
        assert_eq!(held("cp-2_0a1b").as_deref(), Some("cp-2"));
        assert_eq!((held("cp-3_0a1b"), held(""), holder(&json!({}), &hosts)), (None, None, None));
    }

    #[test]
    fn a_node_says_whether_it_is_of_the_control_plane() {
        let of = |labels: Value| is_worker(&json!({"metadata": {"labels": labels}}));
        for label in CONTROL_PLANE {
            assert!(!of(json!({label: ""})) && !of(json!({label: "true"})), "{label}");
        }
        assert!(of(json!({"node-role.kubernetes.io/worker": ""})) && is_worker(&json!({})));
    }

    #[tokio::test]
    async fn commands_are_run_for_a_host_and_nothing_stays_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("away").display().to_string();
        let client = Client::new(&client::Kubeconfig::anonymous("http://127.0.0.1:1")).unwrap();
        let elsewhere = Elsewhere {
            client,
            hosts: vec!["n1".into()],
            workers: Vec::new(),
            means: Means::Commands {
                cut: format!("echo {{node}} > '{path}'; echo not for the report"),
                restore: format!("test \"$(cat '{path}')\" = {{node}} && rm '{path}'"),
            },
            away: Mutex::default(),
        };
        elsewhere.inject("n1", Fault::Command).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "n1\n");
        elsewhere.heal("n1", Fault::Command).await.unwrap();
        let error = elsewhere.heal("n1", Fault::Command).await.unwrap_err().to_string();
        assert!(error.contains("failed (exit status: 1)"), "{error}");
        elsewhere.restore_all().await.unwrap();
        elsewhere.inject("n1", Fault::Command).await.unwrap();
        elsewhere.restore_all().await.unwrap();
        assert!(!std::path::Path::new(&path).exists(), "what an interrupted drill had cut");
        assert!(elsewhere.can(Fault::Partition).is_err());
    }

    /// An agent that writes down what it was asked to do, and says what was last.
    const AGENT: &str = r#"#!/bin/sh
while IFS='=' read -r name value; do case $name in action) action=$value;; file) file=$value;; esac; done
case $action in
    status) [ "$(tail -n 1 "$file")" = off ] && exit 2; exit 0;;
    *) echo "$action" >> "$file";;
esac
"#;

    #[tokio::test]
    async fn fence_agents_switch_hosts_off_and_on() {
        let folder = tempfile::tempdir().unwrap();
        let [program, power, path] =
            ["fence_file", "power", "agents.yaml"].map(|name| folder.path().join(name));
        // By another process: one that this process forks meanwhile would have it open for writing, and then it can't be executed.
        let mut write = std::process::Command::new("sh");
        write.args(["-c", r#"printf %s "$SCRIPT" > "$FILE" && chmod 755 "$FILE""#]);
        assert!(write.env("SCRIPT", AGENT).env("FILE", &program).status().unwrap().success());
        let means = |said: Value| {
            std::fs::write(&path, said.to_string()).unwrap();
            Commands { cut: None, restore: None, fence_agents: Some(path.clone()) }.means()
        };
        for wrong in [
            json!({"agents": {"n1": {"program": "fence_file"}}}),
            json!({"agents": {"n1": {"program": program, "parameters": {"password": "x"}}}}),
            json!({"silentFor": "5s", "agents": {}}),
            json!({}),
        ] {
            assert!(means(wrong.clone()).is_err(), "{wrong}");
        }
        let said = json!({"agents": {"n1": {"program": program, "parameters": {"file": power}}}});
        let elsewhere = Elsewhere {
            client: Client::new(&client::Kubeconfig::anonymous("http://127.0.0.1:1")).unwrap(),
            hosts: vec!["n1".into()],
            workers: Vec::new(),
            means: means(said).unwrap().unwrap(),
            away: Mutex::default(),
        };
        let asked = || std::fs::read_to_string(&power).unwrap();
        elsewhere.inject("n1", Fault::Command).await.unwrap();
        assert_eq!(asked(), "off\n");
        elsewhere.heal("n1", Fault::Command).await.unwrap();
        elsewhere.restore_all().await.unwrap();
        assert_eq!(asked(), "off\non\n");
        elsewhere.inject("n1", Fault::Command).await.unwrap();
        elsewhere.restore_all().await.unwrap();
        assert_eq!(asked(), "off\non\noff\non\n", "what an interrupted drill had cut");
    }
}
