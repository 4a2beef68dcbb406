//! Ours: the DNS of a host over a store in memory, as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::Context;
use futures::FutureExt;
use membership::Hosts;
use serde_json::{Value, json};
use store::{Memory, Store, Txn};
use tokio::sync::watch;

use super::cluster;

/// Arguments of the process.
#[derive(clap::Args)]
pub struct Args {
    /// How many services the cluster has
    services: usize,
}

/// A running host; ended when it is dropped.
pub struct Host {
    process: Child,
    address: SocketAddr,
}

impl Host {
    /// Starts one.
    ///
    /// # Errors
    /// If it doesn't start.
    pub fn start(services: usize) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["dns-host", &services.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().context("can't start a host")?;
        let said = process.stdout.take().context("no output")?;
        let mut line = String::new();
        BufReader::new(said).read_line(&mut line)?;
        let address = line.trim().parse().with_context(|| format!("{line:?} is no address"))?;
        Ok(Host { process, address })
    }

    /// Where it answers.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It ends by itself as well, with the pipe to it.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn put(store: &Memory, (group, resource): (&str, &str), namespace: &str, name: &str, object: &Value) {
    let txn = Txn::put(objects::key(group, resource, namespace, name), object.to_string());
    // A store in memory waits for nothing, and takes what there is room for.
    let _ = store.txn(txn).now_or_never();
}

fn filled(services: usize) -> Memory {
    let store = Memory::default();
    put(&store, ("", "namespaces"), "", "shop", &json!({"metadata": {"name": "shop"}}));
    for service in 0..services {
        let own = json!({"spec": {"clusterIP": cluster::address(service).to_string(), "ports": [
            {"name": "http", "port": 80}]}});
        put(&store, ("", "services"), "shop", &format!("web-{service}"), &own);
        let name = format!("db-{service}");
        put(&store, ("", "services"), "shop", &name, &json!({"spec": {"clusterIP": "None"}}));
        let endpoint = |address: Ipv4Addr| json!({"addresses": [address.to_string()], "nodeName": "n1"});
        let slice = json!({
            "metadata": {"labels": {"kubernetes.io/service-name": name}},
            "endpoints": cluster::endpoints(service).map(endpoint).collect::<Vec<_>>(),
        });
        put(&store, ("discovery.k8s.io", "endpointslices"), "shop", &name, &slice);
    }
    store
}

/// Runs the process: says where it answers, and ends with its input.
///
/// # Errors
/// If it can't listen.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let store = filled(args.services);
    let options = dns::Options {
        zones: dns::Zones {
            domain: dns::domain(),
            networks: vec!["10.96.0.0/16".parse()?, "10.244.0.0/16".parse()?],
            server: [10, 96, 0, 10].into(),
            pods: dns::PodNames::Verified,
        },
        callers: vec!["127.0.0.0/8".parse()?],
        listen: vec![SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)],
        upstream: Vec::new(),
        resolv_conf: "/nonexistent/resolv.conf".into(),
    };
    let server = dns::Server::listen(options, Arc::default())?;
    let address = server.addresses().into_iter().next().context("it listens nowhere")?;
    // As in a host: one thread for it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    runtime.block_on(async {
        let hosts = watch::Sender::new(Arc::new(Hosts::default()));
        println!("{address}");
        server.run(Arc::new(store), hosts.subscribe()).await;
    });
    Ok(())
}
