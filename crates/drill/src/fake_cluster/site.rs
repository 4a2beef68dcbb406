//! What is done to the pretend cluster's hosts, and what follows from it.

use super::{FakeCluster, PODS};
use crate::{BoxFuture, Fault, Happening, Held, Memory, Site};
use serde_json::Value;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::mpsc;

impl FakeCluster {
    fn did(&self, what: &str, host: &str) {
        self.done.lock().unwrap().push(format!("{what} {host}"));
    }

    /// Says who has the virtual address, and takes it from a host that leads until somebody else does.
    fn silence(self: &Arc<Self>, host: &str) -> bool {
        if let Some(held) = self.held.lock().unwrap().as_ref() {
            drop(held.send(Held { at: now(), by: self.script.holders }));
        }
        let leads = *self.leader.lock().unwrap() == host;
        if leads {
            self.silence.send_modify(|n| *n += 1);
        }
        leads
    }

    fn take_over(&self, host: &str) -> &'static str {
        let next = if host == "n1" { "n2" } else { "n3" };
        self.silence.send_modify(|n| *n += 1);
        self.tell(next, "election-won", &[("term", "2")]);
        *self.leader.lock().unwrap() = next.to_owned();
        next
    }

    /// A fault that passes by: who led leads no more, and nothing else comes of it but what the script says.
    fn disturb(self: &Arc<Self>, host: &str) {
        let (cluster, host) = (self.clone(), host.to_owned());
        let leads = self.silence(&host);
        tokio::spawn(async move {
            tokio::time::sleep(cluster.script.silent).await;
            if leads {
                cluster.take_over(&host);
            }
            if cluster.script.hasty {
                let on_it = |(_, pod): &(String, Value)| pod["spec"]["nodeName"] == host.as_str();
                let (path, _) = cluster.all(PODS).into_iter().rfind(on_it).unwrap();
                cluster.remove(&path);
                let (deployment, _) = cluster.all("/deployments").remove(0);
                cluster.set_pod(&deployment, &cluster.next_name(), &host, true);
            }
        });
    }

    /// A host that stays away: another one leads, and its pods are replaced.
    fn lose(self: &Arc<Self>, host: &str) {
        let (cluster, host) = (self.clone(), host.to_owned());
        let lost = cluster.lose_stateful(&host, cluster.script.lives_on);
        let leads = self.silence(&host);
        tokio::spawn(async move {
            tokio::time::sleep(cluster.script.silent).await;
            let next = if host == "n1" { "n2" } else { "n3" };
            let ms = cluster.script.silent.as_millis().to_string();
            cluster.tell(next, "host-silent", &[("subject", &host), ("last_heard_ms_ago", &ms)]);
            if leads {
                cluster.take_over(&host);
            }
            cluster.set_node(&host, false);
            let (deployment, _) = cluster.all("/deployments").remove(0);
            for (path, pod) in cluster.all(PODS) {
                if pod["spec"]["nodeName"] == host.as_str() {
                    cluster.remove(&path);
                }
            }
            cluster.replace_stateful(&host, lost);
            let (name, on) = (cluster.next_name(), cluster.on());
            cluster.set_pod(&deployment, &name, on.last().unwrap(), false);
            tokio::time::sleep(cluster.script.starting).await;
            cluster.set_pod(&deployment, &name, on.last().unwrap(), true);
        });
    }

    fn tell(&self, host: &str, what: &str, fields: &[(&str, &str)]) {
        let fields = fields.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let happening = Happening { at: now(), host: host.into(), what: what.into(), fields };
        if let Some(inside) = self.inside.lock().unwrap().as_ref() {
            drop(inside.send(happening));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a site says when it did something")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// The cluster as a site.
pub(crate) struct FakeSite(pub(crate) Arc<FakeCluster>);

impl Site for FakeSite {
    fn hosts(&self) -> Vec<String> {
        ["n1", "n2", "n3"].map(str::to_owned).into()
    }

    fn workers(&self) -> Vec<String> {
        self.0.script.has_worker.then(|| "n3".to_owned()).into_iter().collect()
    }

    fn net(&self) -> &str {
        "loopback"
    }

    fn api_address(&self, _: &str) -> Option<String> {
        self.0.script.own_addresses.then(|| self.0.own.clone())
    }

    fn can(&self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Command => Err("there is no command".into()),
            _ => Ok(()),
        }
    }

    fn inject<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        let at = now();
        self.0.did(fault.name(), host);
        match fault.takes_host_away() {
            true => self.0.lose(host),
            false => self.0.disturb(host),
        }
        Box::pin(async move { Ok(at) })
    }

    fn reaches_pods(&self) -> bool {
        true
    }

    fn holders(&self) -> Result<mpsc::UnboundedReceiver<Held>, String> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.held.lock().unwrap() = Some(sender);
        Ok(receiver)
    }

    fn memory<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Option<Memory>> {
        Box::pin(async { Some(Memory { resident: 30_000_000, peak: 40_000_000 }) })
    }

    fn heal<'a>(&'a self, host: &'a str, fault: Fault) -> BoxFuture<'a, anyhow::Result<SystemTime>> {
        let at = now();
        self.0.did("healed", host);
        if fault.takes_host_away() {
            self.0.set_node(host, true);
        }
        if fault.ends_program() {
            self.0.tell(host, "store-caught-up", &[]);
        }
        Box::pin(async move { Ok(at) })
    }

    fn leader<'a>(&'a self) -> BoxFuture<'a, anyhow::Result<Option<String>>> {
        let leader = self.0.leader.lock().unwrap().clone();
        Box::pin(async move { Ok(Some(leader)) })
    }

    fn timeline(&self) -> mpsc::UnboundedReceiver<Happening> {
        let (sender, receiver) = mpsc::unbounded_channel();
        *self.0.inside.lock().unwrap() = Some(sender);
        receiver
    }
}
