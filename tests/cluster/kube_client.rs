//! The crate `kube` against a cluster: pages, leader election, exec, attach and port-forward.

use std::time::Duration;

use futures::SinkExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{AttachParams, ListParams, Patch, PatchParams, PostParams, TerminalSize};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

use crate::harness::{Cluster, wait_for};

fn pod(name: &str, container: serde_json::Value) -> Pod {
    let mut container = container;
    container["name"] = "main".into();
    let spec =
        json!({"runtimeClassName": "host", "containers": [container], "terminationGracePeriodSeconds": 0});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

async fn running(pods: &Api<Pod>, name: &str) {
    wait_for("the pod", || async {
        let status = pods.get(name).await.ok()?.status?;
        status.container_statuses?.iter().all(|container| container.ready).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_moment() {
    let cluster = Cluster::with(1, "auto").await;
    let maps = Api::<ConfigMap>::default_namespaced(cluster.client().await.unwrap());
    let make = |number: usize| {
        let name = format!("page-{number:02}");
        serde_json::from_value::<ConfigMap>(json!({"metadata": {"name": name, "labels": {"l": "page"}}}))
            .unwrap()
    };
    for number in 0..23 {
        maps.create(&PostParams::default(), &make(number)).await.unwrap();
    }
    let mut params = ListParams::default().labels("l=page").limit(10);
    let (mut names, mut sizes) = (Vec::new(), Vec::new());
    loop {
        let page = maps.list(&params).await.unwrap();
        if sizes.is_empty() {
            maps.create(&PostParams::default(), &make(99)).await.unwrap();
        }
        sizes.push(page.items.len());
        names.extend(page.items.iter().map(ResourceExt::name_any));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => break,
        }
    }
    assert_eq!(sizes, [10, 10, 3]);
    assert_eq!(names, (0..23).map(|number| format!("page-{number:02}")).collect::<Vec<_>>());
}

/// One round of an election over a Lease, as client-go's elector has it: takes a Lease that nobody has or whose time is
/// over, renews its own, and answers who leads.
async fn campaign(leases: &Api<Lease>, me: &str, seconds: i32) -> Result<String, kube::Error> {
    let now = MicroTime(Timestamp::now());
    let spec = json!({"holderIdentity": me, "leaseDurationSeconds": seconds, "renewTime": now});
    let Some(mut lease) = leases.get_opt("leader").await? else {
        let lease = serde_json::from_value(json!({"metadata": {"name": "leader"}, "spec": spec})).unwrap();
        leases.create(&PostParams::default(), &lease).await?;
        return Ok(me.to_owned());
    };
    let held = lease.spec.clone().unwrap_or_default();
    let holder = held.holder_identity.unwrap_or_default();
    let renewed = held.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let over = renewed.as_millisecond() + i64::from(held.lease_duration_seconds.unwrap_or(0)) * 1000;
    if holder != me && now.0.as_millisecond() < over {
        return Ok(holder);
    }
    lease.spec = Some(serde_json::from_value(spec).unwrap());
    leases.replace("leader", &PostParams::default(), &lease).await?;
    Ok(me.to_owned())
}

#[tokio::test]
async fn one_candidate_leads_and_another_follows_when_it_is_gone() {
    let cluster = Cluster::up().await;
    let leases = Api::<Lease>::default_namespaced(cluster.client().await.unwrap());
    // All at once: one wins, and those that come too late get a conflict.
    let names: Vec<String> = (0..8).map(|number| format!("candidate-{number}")).collect();
    let rounds = futures::future::join_all(names.iter().map(|name| campaign(&leases, name, 2))).await;
    let mut leaders = std::collections::BTreeSet::new();
    for round in rounds {
        match round {
            Ok(leader) => drop(leaders.insert(leader)),
            Err(kube::Error::Api(status)) => assert_eq!(status.code, 409, "{status:?}"),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(leaders.len(), 1, "{leaders:?}");
    let first = leaders.pop_first().unwrap();
    assert_eq!(campaign(&leases, &first, 2).await.unwrap(), first);
    let other = names.iter().find(|name| **name != first).unwrap();
    assert_eq!(campaign(&leases, other, 2).await.unwrap(), first);
    // The first stops to renew.
    wait_for("another leader", || async {
        (campaign(&leases, other, 60).await.ok()? == *other).then_some(())
    })
    .await;
    assert_eq!(campaign(&leases, &first, 60).await.unwrap(), *other);
    // A write with an old version changes nothing.
    let mut stale = leases.get("leader").await.unwrap();
    let patch = json!({"metadata": {"annotations": {"seen": "yes"}}});
    leases.patch("leader", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    stale.spec.as_mut().unwrap().holder_identity = Some("thief".into());
    match leases.replace("leader", &PostParams::default(), &stale).await {
        Err(kube::Error::Api(status)) => assert_eq!((status.code, &*status.reason), (409, "Conflict")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn commands_run_and_ports_answer() {
    let cluster = Cluster::up().await;
    let pods = Api::<Pod>::default_namespaced(cluster.client().await.unwrap());
    let address = json!({"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}});
    let web = json!({"command": ["holdfast", "web"], "env": [address],
        "readinessProbe": {"tcpSocket": {"port": 8080}}});
    pods.create(&PostParams::default(), &pod("web", web)).await.unwrap();
    let shell = json!({"command": ["sh"], "stdin": true, "tty": true});
    pods.create(&PostParams::default(), &pod("shell", shell)).await.unwrap();
    running(&pods, "web").await;
    running(&pods, "shell").await;

    let script = "read line; echo heard $line; echo oops >&2; exit 5";
    let params = AttachParams::default().stdin(true);
    let mut process = pods.exec("web", ["sh", "-c", script], &params).await.unwrap();
    process.stdin().unwrap().write_all(b"this\n").await.unwrap();
    let (mut out, mut err) = (String::new(), String::new());
    let (mut stdout, mut stderr) = (process.stdout().unwrap(), process.stderr().unwrap());
    let (a, b) = tokio::join!(stdout.read_to_string(&mut out), stderr.read_to_string(&mut err));
    a.unwrap();
    b.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("heard this\n", "oops\n"));
    let status = process.take_status().unwrap().await.unwrap();
    assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
    let causes = status.details.unwrap().causes.unwrap();
    assert_eq!((causes[0].reason.as_deref(), causes[0].message.as_deref()), (Some("ExitCode"), Some("5")));
    process.join().await.unwrap();

    let mut terminal = pods.attach("shell", &AttachParams::interactive_tty()).await.unwrap();
    let mut size = terminal.terminal_size().unwrap();
    size.send(TerminalSize { width: 99, height: 44 }).await.unwrap();
    terminal
        .stdin()
        .unwrap()
        .write_all(b"while ! stty size | grep '44 99'; do :; done; echo $((40+2))\n")
        .await
        .unwrap();
    let mut seen = BufReader::new(terminal.stdout().unwrap()).lines();
    while seen.next_line().await.unwrap().unwrap().trim_end() != "42" {}
    terminal.abort();

    let mut forwarded = pods.portforward("web", &[8080, 9]).await.unwrap();
    let mut stream = forwarded.take_stream(8080).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !String::from_utf8_lossy(&answer).contains("web") {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0, "{}", String::from_utf8_lossy(&answer));
        }
    };
    tokio::time::timeout(Duration::from_secs(60), read).await.unwrap();
    let refused = forwarded.take_error(9).unwrap().await.unwrap();
    assert!(refused.contains("error forwarding port 9"), "{refused}");
    forwarded.abort();
}
