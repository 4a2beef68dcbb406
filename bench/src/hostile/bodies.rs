//! Bodies that are hard to read, and objects that are written again and again.

use std::time::Instant;

use tokio::task::JoinSet;

use super::Figures;
use crate::api::client::Client;
use crate::api::hosts::Hosts;

const JSON: &str = "application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// Sends `count` requests at the same time, each once; the answers' codes and how long all of them took.
#[allow(clippy::disallowed_methods, reason = "it measures")]
async fn at_once(
    hosts: &Hosts,
    count: usize,
    path: &'static str,
    media_type: &'static str,
    body: String,
) -> anyhow::Result<Figures> {
    let body = std::sync::Arc::new(body);
    let (begin, mut asked) = (Instant::now(), JoinSet::new());
    for _ in 0..count {
        let (address, tls, body) = (hosts.addresses[0], hosts.tls.clone(), body.clone());
        asked.spawn(async move {
            Client::connect(address, &tls).await?.try_ask("POST", path, media_type, &body).await
        });
    }
    let (mut refused, mut later) = (0.0, 0.0);
    while let Some(answer) = asked.join_next().await {
        match answer??.0 {
            429 => later += 1.0,
            _ => refused += 1.0,
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    Ok(vec![("answered", refused), ("told_later", later), ("seconds", seconds)])
}

/// A megabyte of brackets, which YAML's parser takes time squared for.
pub async fn nested_yaml(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    at_once(hosts, count, path, "application/yaml", "a: ".to_owned() + &"[".repeat(1_000_000)).await
}

/// Three megabytes that are a million elements, each of which is wrong.
pub async fn many_elements(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let ports = "{},".repeat(999_999) + "{}";
    let body = format!(
        r#"{{"kind":"Service","apiVersion":"v1","metadata":{{"name":"many"}},"spec":{{"ports":[{ports}]}}}}"#
    );
    at_once(hosts, count, "/api/v1/namespaces/default/services", JSON, body).await
}

/// Two kilobytes of empty elements, each of which gets ten thousand defaults of a custom resource's schema.
pub async fn many_defaults(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let properties: Vec<String> =
        (0..10_000).map(|number| format!(r#""p{number}":{{"type":"string","default":"x"}}"#)).collect();
    let definition = format!(
        r#"{{"kind":"CustomResourceDefinition","apiVersion":"apiextensions.k8s.io/v1","metadata":{{"name":"wides.example.com"}},
        "spec":{{"group":"example.com","scope":"Namespaced","names":{{"plural":"wides","kind":"Wide"}},"versions":[{{"name":"v1",
        "served":true,"storage":true,"schema":{{"openAPIV3Schema":{{"type":"object","properties":{{"list":{{"type":"array",
        "items":{{"type":"object","properties":{{{}}}}}}}}}}}}}}}]}}}}"#,
        properties.join(",")
    );
    let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    client.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON, &definition).await?;
    let path = "/apis/example.com/v1/namespaces/default/wides";
    // The kind is served as soon as the leader has accepted its names.
    while client.try_ask("GET", path, JSON, "").await?.0 == 404 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let items = "{},".repeat(499) + "{}";
    let body = format!(
        r#"{{"kind":"Wide","apiVersion":"example.com/v1","metadata":{{"name":"many"}},"list":[{items}]}}"#
    );
    at_once(hosts, count, path, JSON, body).await
}

/// One ConfigMap of a megabyte, written anew by four clients: each version is history.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub async fn rewriting(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let map = |number: usize| {
        format!(
            r#"{{"kind":"ConfigMap","apiVersion":"v1","metadata":{{"name":"one"}},"data":{{"n":"{number}","text":"{}"}}}}"#,
            "x".repeat(1_000_000)
        )
    };
    let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
    client.ask("POST", MAPS, JSON, &map(0)).await?;
    let (begin, mut writing) = (Instant::now(), JoinSet::new());
    for writer in 0..4 {
        let mut client = Client::connect(hosts.addresses[0], &hosts.tls).await?;
        writing.spawn(async move {
            let mut written = 0;
            for number in (writer..count).step_by(4) {
                let path = format!("{MAPS}/one");
                if client.try_ask("PUT", &path, JSON, &map(number + 1)).await?.0 == 200 {
                    written += 1;
                }
            }
            anyhow::Ok(written)
        });
    }
    let mut written = 0;
    while let Some(some) = writing.join_next().await {
        written += some??;
    }
    Ok(vec![("written", f64::from(written)), ("seconds", begin.elapsed().as_secs_f64())])
}
