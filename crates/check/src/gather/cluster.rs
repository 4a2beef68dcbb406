//! What the other hosts say: asked over TLS with the host's own identity, and nobody but whom the configuration names.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use client::{Client, Kubeconfig};
use config::HostConfig;
use futures::future::join_all;
use nix::sys::socket::{getsockopt, sockopt};
use objects::Fencing;
use pki::Trust;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;

use crate::facts::{Cluster, Health, Lease, Node, Peer, Skew, Way};

/// How long a host may take for one answer: it answers in milliseconds, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a way is measured; the shortest counts, since the others met something on it.
const TRIES: usize = 3;

/// Asks all members of the configuration at once. An administrator's identity sees what a host's own may not: metrics, and
/// the Nodes of others.
///
/// # Errors
/// The host's identity can't be used.
pub(super) async fn cluster(
    config: &HostConfig,
    administrator: Option<&Kubeconfig>,
) -> Result<Cluster, String> {
    let own = own(config)?;
    let port = config.ports.api;
    let peers = config.peers_at(port).into_iter().map(|(name, at)| {
        let own = own.clone();
        async move { (name, peer(at, &own, administrator).await) }
    });
    let peers = join_all(peers).await.into_iter().collect();
    let virtual_api = health(config.virtual_api(), &own).await.map(|health| health.code);
    let at = SocketAddr::new(config.address, port);
    let nodes = match administrator {
        Some(administrator) => all_nodes(at, administrator).await,
        None => own_node(at, &own, &config.name).await,
    };
    Ok(Cluster { peers, virtual_api, nodes, sees_all_nodes: administrator.is_some() })
}

/// Who this host is to the API.
fn own(config: &HostConfig) -> Result<Kubeconfig, String> {
    let identity = pki::Identity::load(&config.pki_dir, &config.name).map_err(|error| error.to_string())?;
    let trust = Trust::load(&config.pki_dir).map_err(|error| error.to_string())?;
    Ok(Kubeconfig {
        origin: config.pki_dir.display().to_string(),
        certificate_authority: trust.pem().into(),
        client_certificate: Some(identity.certificate_pem().into()),
        client_key: Some(identity.key_pem().expose().as_bytes().into()),
        ..Kubeconfig::anonymous("")
    })
}

fn client(at: SocketAddr, who: &Kubeconfig) -> Result<Client, String> {
    let client = Client::new(&who.with_server(format!("https://{at}"))).map_err(|error| error.to_string())?;
    Ok(client.with_timeout(PATIENCE))
}

async fn peer(at: SocketAddr, own: &Kubeconfig, administrator: Option<&Kubeconfig>) -> Peer {
    let way = way(at).await;
    let health = match &way {
        Ok(_) => health(at, own).await,
        Err(why) => Err(why.clone()),
    };
    let lease = match &health {
        Ok(_) => lease(at, administrator.unwrap_or(own)).await,
        Err(why) => Err(why.clone()),
    };
    Peer { address: at, way, health, lease }
}

#[allow(clippy::disallowed_methods)] // It measures.
async fn way(at: SocketAddr) -> Result<Way, String> {
    let (mut time, mut segment) = (PATIENCE, None);
    for _ in 0..TRIES {
        let start = Instant::now();
        let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(at)).await;
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(why)) => return Err(why.to_string()),
            Err(_) => return Err(format!("no connection within {} s", PATIENCE.as_secs())),
        };
        time = time.min(start.elapsed());
        segment = getsockopt(&connection, sockopt::TcpMaxSeg).ok();
    }
    Ok(Way { time, segment })
}

#[allow(clippy::disallowed_methods)] // Another clock is compared with this one.
async fn health(at: SocketAddr, who: &Kubeconfig) -> Result<Health, String> {
    let client = client(at, who)?;
    let sent = SystemTime::now();
    let answer = client.fresh("/readyz?verbose", PATIENCE).await.map_err(|error| error.to_string())?;
    let received = SystemTime::now();
    Ok(Health {
        code: answer.code,
        says: String::from_utf8_lossy(&answer.body).into_owned(),
        skew: answer.date.as_deref().and_then(|date| skew(date, sent, received)),
    })
}

/// A server says `date` of the second in which it answered, which was some time between `sent` and `received`.
fn skew(date: &str, sent: SystemTime, received: SystemTime) -> Option<Skew> {
    let said = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok()?.as_millisecond();
    let milliseconds =
        |time: SystemTime| i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok();
    Some(Skew { least: said - milliseconds(received)?, most: said + 1000 - milliseconds(sent)? })
}

async fn all_nodes(at: SocketAddr, who: &Kubeconfig) -> Result<Vec<Node>, String> {
    let list = client(at, who)?.get("/api/v1/nodes").await.map_err(|error| error.to_string())?;
    parse_nodes(list).map_err(|error| error.to_string())
}

async fn own_node(at: SocketAddr, own: &Kubeconfig, name: &str) -> Result<Vec<Node>, String> {
    let node =
        client(at, own)?.get(&format!("/api/v1/nodes/{name}")).await.map_err(|error| error.to_string())?;
    parse_nodes(serde_json::json!({"items": [node]})).map_err(|error| error.to_string())
}

pub(crate) fn parse_nodes(list: Value) -> Result<Vec<Node>, serde_json::Error> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
        #[serde(default)]
        spec: Spec,
        #[serde(default)]
        status: Status,
    }
    #[derive(Deserialize)]
    struct Metadata {
        name: String,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    #[derive(Deserialize, Default)]
    struct Spec {
        #[serde(default)]
        unschedulable: bool,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Status {
        conditions: Vec<Condition>,
        node_info: Info,
    }
    #[derive(Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: String,
    }
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Info {
        #[serde(rename = "machineID")]
        machine_id: String,
    }
    let list: List = serde_json::from_value(list)?;
    let node = |item: Item| {
        let (ready, others): (Vec<_>, Vec<_>) =
            item.status.conditions.into_iter().partition(|condition| condition.r#type == "Ready");
        let ready = ready.into_iter().next();
        let troubles = others.into_iter().filter(|condition| condition.status == "True");
        Node {
            name: item.metadata.name,
            is_ready: ready.as_ref().is_some_and(|ready| ready.status == "True"),
            why: ready.map_or_else(
                || "it has never said so".to_owned(),
                |ready| format!("{} {}", ready.reason, ready.message),
            ),
            machine_id: item.status.node_info.machine_id,
            is_cordoned: item.spec.unschedulable,
            troubles: troubles.map(|condition| condition.r#type).collect(),
            fencing: Fencing::of(Some(&item.metadata.annotations)),
        }
    };
    Ok(list.items.into_iter().map(node).collect())
}

async fn lease(at: SocketAddr, who: &Kubeconfig) -> Result<Lease, String> {
    let answer = client(at, who)?.fresh("/metrics", PATIENCE).await.map_err(|error| error.to_string())?;
    match answer.code {
        200 => parse_lease(&String::from_utf8_lossy(&answer.body))
            .ok_or_else(|| "the metrics don't tell".to_owned()),
        403 => Err("this host's identity may not read /metrics".to_owned()),
        code => Err(format!("/metrics answers with code {code}")),
    }
}

fn parse_lease(metrics: &str) -> Option<Lease> {
    let value = |line: &str| line.rsplit_once(' ')?.1.parse::<f64>().ok();
    let seconds = metrics.lines().find(|line| line.starts_with("holdfast_lease_seconds "))?;
    let fenced = metrics.lines().filter_map(|line| {
        let host = line.strip_prefix(r#"holdfast_host_fenced{host=""#)?.split('"').next()?;
        (value(line)? > 0.0).then(|| host.to_owned())
    });
    Some(Lease { seconds: value(seconds)?, fenced: fenced.collect() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_clock_is_compared_within_the_second_that_was_told() {
        // 2026-11-30T12:00:00Z.
        let at = |ms: u64| UNIX_EPOCH + Duration::from_millis(1_796_040_000_000 + ms);
        let skew = |sent, received| skew("Mon, 30 Nov 2026 12:00:00 GMT", at(sent), at(received));
        assert_eq!(skew(200, 300), Some(Skew { least: -300, most: 800 }), "it may be the same");
        assert_eq!(skew(5200, 5300), Some(Skew { least: -5300, most: -4200 }), "it is behind");
        assert_eq!(super::skew("yesterday", at(0), at(0)), None);
    }

    #[test]
    fn nodes_tell_whether_they_are_ready() {
        let condition =
            json!({"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown", "message": "silent"});
        let nodes = parse_nodes(json!({"items": [
            {"metadata": {"name": "n1"}, "status": {"nodeInfo": {"machineID": "m"}, "conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "n2"}, "status": {"conditions": [condition]}},
            {"metadata": {"name": "n3", "annotations": {"holdfast.dev/fencing": "lease"}}, "spec": {"unschedulable": true},
             "status": {"conditions": [{"type": "DiskPressure", "status": "True"}, {"type": "PIDPressure", "status": "False"}]}},
        ]}))
        .unwrap();
        assert!(nodes[2].is_cordoned && nodes[2].fencing.grade.is_some() && !nodes[0].is_cordoned);
        assert_eq!(nodes[2].troubles, ["DiskPressure"]);
        let told: Vec<_> =
            nodes.iter().map(|node| (node.is_ready, node.why.as_str(), node.machine_id.as_str())).collect();
        assert_eq!(
            told,
            [(true, " ", "m"), (false, "NodeStatusUnknown silent", ""), (false, "it has never said so", "")]
        );
        assert!(parse_nodes(json!({"kind": "Status"})).is_err());
    }

    #[test]
    fn metrics_tell_of_leases() {
        const METRICS: &str = "# TYPE holdfast_lease_seconds gauge
holdfast_lease_seconds 1.25
holdfast_host_fenced{host=\"n2\"} 1
holdfast_host_fenced{host=\"n3\"} 0
";
        assert_eq!(parse_lease(METRICS), Some(Lease { seconds: 1.25, fenced: vec!["n2".into()] }));
        assert_eq!(parse_lease("up 1"), None);
    }
}
