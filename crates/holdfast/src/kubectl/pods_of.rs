//! A pod that a command is about, by its name or by what has it: a Deployment, a Service, a ReplicaSet.

use anyhow::{Context, bail};
use client::{Client, Discovery, with_query};
use serde_json::Value;

use super::Connection;
use crate::tell::say;

/// The arguments that say of which container a command is.
#[derive(Debug, clap::Args)]
pub struct OfPod {
    /// The pod: NAME, or TYPE/NAME of what has pods, such as deployment/web
    #[arg(value_name = "POD")]
    pub pod: String,
    /// The container, where the pod has several
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
}

impl OfPod {
    /// The cluster, and the path of the pod in its API.
    pub async fn find(&self) -> anyhow::Result<(Client, String)> {
        let (client, namespace) = self.connection.open()?;
        let discovery = Discovery::ask(&client).await?;
        let name = pod(&client, &discovery, &namespace, &self.pod).await?;
        let path = discovery.find("pods")?.path(Some(&namespace), Some(&name));
        Ok((client, path))
    }

    /// The container, as a query says it.
    pub fn container(&self) -> Option<(&'static str, &str)> {
        self.container.as_deref().map(|container| ("container", container))
    }
}

/// The pod that `word` means: `NAME`, `pod/NAME`, or `TYPE/NAME` of what selects pods, of which one that runs is taken.
async fn pod(client: &Client, discovery: &Discovery, namespace: &str, word: &str) -> anyhow::Result<String> {
    let Some((kind, name)) = word.split_once('/') else { return Ok(word.to_owned()) };
    let resource = discovery.find(kind)?;
    if resource.plural == "pods" {
        return Ok(name.to_owned());
    }
    let owner = client.get(&resource.path(Some(namespace), Some(name))).await?;
    let Some(selector) = selector(&owner["spec"]["selector"]) else {
        bail!("{}/{name} has no selector of pods: say pod/NAME", resource.typed());
    };
    let path = with_query(
        &discovery.find("pods")?.path(Some(namespace), None),
        &[("labelSelector", selector.as_str())],
    );
    let list = client.get(&path).await?;
    let pods: Vec<&Value> = list["items"].as_array().into_iter().flatten().collect();
    let chosen = choose(&pods).with_context(|| format!("{}/{name} has no pods", resource.typed()))?;
    if pods.len() > 1 {
        say!("Found {} pods, using pod/{chosen}", pods.len());
    }
    Ok(chosen.to_owned())
}

/// One that runs where there is one, and of several the one that has run longest.
fn choose<'a>(pods: &[&'a Value]) -> Option<&'a str> {
    let rank = |pod: &&&'a Value| {
        let runs = pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null();
        (!runs, pod["metadata"]["creationTimestamp"].as_str().unwrap_or_default())
    };
    pods.iter().min_by_key(rank)?["metadata"]["name"].as_str()
}

/// A selector, as it stands in a query; none where it selects nothing. A Service's is a plain map.
fn selector(selector: &Value) -> Option<String> {
    let is_map = selector.get("matchLabels").is_none() && selector.get("matchExpressions").is_none();
    let labels = if is_map { selector } else { &selector["matchLabels"] };
    let labels = labels.as_object().into_iter().flatten();
    let mut terms: Vec<String> =
        labels.filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?))).collect();
    for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = expression["key"].as_str()?;
        let values = expression["values"].as_array().into_iter().flatten();
        let values = values.filter_map(Value::as_str).collect::<Vec<_>>().join(",");
        terms.push(match expression["operator"].as_str()? {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    Some(terms.join(",")).filter(|terms| !terms.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selectors_stand_in_a_query_as_they_are_meant() {
        for (given, query) in [
            (json!({"app": "web", "tier": "a"}), Some("app=web,tier=a")),
            (json!({"matchLabels": {"app": "web"}}), Some("app=web")),
            (
                json!({"matchLabels": {"a": "b"}, "matchExpressions": [
                    {"key": "x", "operator": "In", "values": ["1", "2"]},
                    {"key": "y", "operator": "NotIn", "values": ["3"]},
                    {"key": "z", "operator": "Exists"},
                    {"key": "w", "operator": "DoesNotExist"}]}),
                Some("a=b,x in (1,2),y notin (3),z,!w"),
            ),
            (json!({}), None),
            (json!(null), None),
        ] {
            assert_eq!(selector(&given).as_deref(), query, "{given}");
        }
    }

    #[test]
    fn the_one_that_has_run_longest_is_taken() {
        let pod = |name: &str, phase: &str, at: &str| json!({"metadata": {"name": name, "creationTimestamp": at}, "status": {"phase": phase}});
        let pods = [pod("a", "Pending", "1"), pod("b", "Running", "3"), pod("c", "Running", "2")];
        assert_eq!(choose(&pods.iter().collect::<Vec<_>>()), Some("c"));
        assert_eq!(choose(&[&pods[0]]), Some("a"));
        assert_eq!(choose(&[]), None);
    }
}
