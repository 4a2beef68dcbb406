//! Those who mean well: how long they wait for the API, and for a service behind it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Figures;
use crate::api::client::Client;
use crate::api::hosts::Hosts;
use crate::store::Histogram;

const JSON: &str = "application/json";
/// Between two asks.
const PAUSE: Duration = Duration::from_millis(20);
/// A request without an answer within this time has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is asked for: something of the API, and something of a service's backend, which takes the host one connection more.
const PATHS: [&str; 2] =
    ["/api/v1/namespaces/default", "/api/v1/namespaces/default/services/bench:80/proxy/"];

/// Asks at work, each on a connection of its own.
pub struct Others {
    stop: watch::Sender<()>,
    asking: Vec<JoinHandle<anyhow::Result<(Histogram, usize)>>>,
}

impl Others {
    /// Starts to ask.
    pub async fn start(hosts: &Hosts) -> anyhow::Result<Self> {
        let service = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"bench"},"spec":{"ports":[{"port":80}]}}"#;
        let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
        client.ask("POST", "/api/v1/namespaces/default/services", JSON, service).await?;
        for path in PATHS {
            client.ask("GET", path, JSON, "").await?;
        }
        let (stop, stopped) = watch::channel(());
        let ask = |path| tokio::spawn(ask(hosts.addresses[0], hosts.tls.clone(), path, stopped.clone()));
        Ok(Others { stop, asking: PATHS.into_iter().map(ask).collect() })
    }

    /// How it went.
    pub async fn end(self) -> anyhow::Result<Figures> {
        let Others { stop, asking } = self;
        drop(stop);
        let mut figures = Figures::new();
        let names = [
            ["api_p50_ms", "api_p99_ms", "api_max_ms", "api_failed"],
            ["service_p50_ms", "service_p99_ms", "service_max_ms", "service_failed"],
        ];
        for (task, names) in asking.into_iter().zip(names) {
            let (times, failed) = task.await??;
            let values =
                [times.percentile_ms(50.0), times.percentile_ms(99.0), times.largest_ms(), failed as f64];
            figures.extend(names.into_iter().zip(values));
        }
        Ok(figures)
    }
}

/// Asks again and again until it is stopped: how long it took, and how often it failed.
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn ask(
    address: SocketAddr,
    tls: Arc<ClientConfig>,
    path: &'static str,
    mut stopped: watch::Receiver<()>,
) -> anyhow::Result<(Histogram, usize)> {
    let (mut times, mut failed) = (Histogram::default(), 0);
    loop {
        let begin = Instant::now();
        let asked = async { Client::connect(address, &tls).await?.ask("GET", path, JSON, "").await };
        match timeout(PATIENCE, asked).await {
            Ok(Ok(_)) => {}
            _ => failed += 1,
        }
        times.record(u64::try_from(begin.elapsed().as_nanos()).unwrap_or(u64::MAX));
        tokio::select! {
            _ = stopped.changed() => return Ok((times, failed)),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}
