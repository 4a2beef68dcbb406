//! Whose turn it is: of all hosts one is upgraded at a time. A Lease in the cluster says which, and for how long at most.

use std::time::Duration;

use anyhow::Context;
use client::{Client, Content};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const NAME: &str = "holdfast-upgrade";

/// Takes the turn for a host, for no longer than `lasting`. Where two hosts ask at a time, one is refused.
pub async fn take(client: &Client, host: &str, lasting: Duration) -> anyhow::Result<()> {
    let now = now();
    let failed = || format!("can't make sure that {host} alone is upgraded now");
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": NAME},
        "spec": {
            "holderIdentity": host,
            "leaseDurationSeconds": lasting.as_secs(),
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        },
    });
    match client.create(LEASES, &lease).await {
        Err(error) if error.code() == Some(409) => {}
        made => return made.map(drop).with_context(failed),
    }
    let path = format!("{LEASES}/{NAME}");
    let there = client.get(&path).await.with_context(failed)?;
    if let Some(other) = holder(&there, now).filter(|other| *other != host) {
        anyhow::bail!("{other} is being upgraded: one host at a time");
    }
    // On the condition that it is as it was seen.
    lease["metadata"]["resourceVersion"] = there["metadata"]["resourceVersion"].clone();
    client.patch(&path, Content::MergePatch, &lease).await.map(drop).with_context(failed)
}

/// Gives the turn back. Where that fails, its time ends.
pub async fn give_back(client: &Client) {
    let _ = client.delete(&format!("{LEASES}/{NAME}"), &json!({})).await;
}

/// Whose turn it is by a Lease; nobody's once its time is over. One that doesn't say until when is nobody's, too.
fn holder(lease: &Value, now: Timestamp) -> Option<&str> {
    let spec = &lease["spec"];
    let since: Timestamp = spec["renewTime"].as_str()?.parse().ok()?;
    let lasting = SignedDuration::from_secs(spec["leaseDurationSeconds"].as_i64()?);
    let until = since.checked_add(lasting).ok()?;
    spec["holderIdentity"].as_str().filter(|_| now < until)
}

#[allow(clippy::disallowed_methods, reason = "the program: a turn begins now")]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_a_hosts_until_its_time_is_over() {
        let lease = |since: &str, lasting: i64| json!({"spec": {"holderIdentity": "n2", "leaseDurationSeconds": lasting, "renewTime": since}});
        let now = "2026-11-30T12:00:00Z".parse().unwrap();
        assert_eq!(holder(&lease("2026-11-30T11:59:00.000000Z", 61), now), Some("n2"));
        assert_eq!(holder(&lease("2026-11-30T11:59:00.000000Z", 60), now), None);
        assert_eq!(holder(&lease("2026-11-30T11:59:00.000000Z", i64::MAX), now), None, "no such time");
        for other in [json!({}), lease("soon", 60), json!({"spec": {"holderIdentity": "n2"}})] {
            assert_eq!(holder(&other, now), None);
        }
    }
}
