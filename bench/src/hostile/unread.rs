//! Answers and events that nobody reads.

use std::time::Duration;

use tokio::time::sleep;

use super::Figures;
use crate::api::client::Client;
use crate::api::hosts::Hosts;
use crate::process::resident_mb;

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, bytes: usize) -> String {
    let text = "x".repeat(bytes);
    format!(
        r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"{name}"}},"data":{{"text":"{text}"}}}}"#
    )
}

/// Watches that are never read, while an object of 10 KiB changes.
pub async fn watches(hosts: &Hosts, count: usize, changes: usize) -> anyhow::Result<Figures> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
        client.send("GET", &format!("{MAPS}?watch=1"), JSON, "").await?;
        held.push(client);
    }
    let mut writer = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    writer.ask("POST", MAPS, JSON, &map("one", 10_240)).await?;
    for number in 0..changes {
        writer.ask("PUT", &format!("{MAPS}/one"), JSON, &map("one", 10_240 + number % 2)).await?;
    }
    let with = resident_mb(hosts.first())?;
    held.clear();
    sleep(Duration::from_secs(3)).await;
    Ok(vec![("watches", count as f64), ("changes", changes as f64), ("with_mb", with)])
}

/// Lists of 30 MB that are never read.
pub async fn lists(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let mut writer = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    for number in 0..30 {
        writer.ask("POST", MAPS, JSON, &map(&format!("m{number}"), 1_000_000)).await?;
    }
    let before = resident_mb(hosts.first())?;
    let mut held = Vec::new();
    for _ in 0..count {
        let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
        client.send("GET", MAPS, JSON, "").await?;
        held.push(client);
    }
    let mut most: f64 = 0.0;
    for _ in 0..40 {
        most = most.max(resident_mb(hosts.first())?);
        sleep(Duration::from_millis(250)).await;
    }
    // One that reads gets its list all the same.
    let mut reader = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    let (code, length) = reader.try_ask("GET", MAPS, JSON, "").await?;
    anyhow::ensure!(code == 429 || length > 30_000_000, "a list that is read is whole");
    drop(held);
    sleep(Duration::from_secs(3)).await;
    Ok(vec![
        ("lists", count as f64),
        ("with_objects_mb", before),
        ("with_mb", most),
        ("a_reader_got", f64::from(code)),
    ])
}
