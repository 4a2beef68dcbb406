//! What is asked about nodes and pods, and the answers.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Response;
use machinery::{LabelSelector, Object, Status};
use objects::{load, namespace_prefix, rfc3339};
use serde_json::{Value, json};
use store::KeyRange;

use super::sample::{Rate, between};
use super::{GROUP, Looks, Usage, VERSION};
use crate::aggregation::RequestInfo;
use crate::http::Body;
use crate::http::beside::Beside;
use crate::http::query::Query;
use crate::http::response::json as answer;
use crate::registry::Freshness;

impl Usage {
    /// Answers get and list of nodes and pods.
    pub(crate) async fn answer(
        &self,
        info: &RequestInfo,
        query: &Query,
        beside: &Beside,
    ) -> Result<Response<Body>, Status> {
        let one = info.verb == "get";
        let known =
            matches!((info.resource.as_str(), info.namespace.is_empty()), ("nodes", true) | ("pods", _));
        if !known
            || !info.subresource.is_empty()
            || (one && info.resource == "pods" && info.namespace.is_empty())
        {
            return Err(Status::new(404, "NotFound", "the server could not find the requested resource"));
        }
        if !one && info.verb != "list" {
            return Err(Status::method_not_allowed());
        }
        // A name has no comma: behind one stands another term.
        let is_name = |fields: &str| !info.name.is_empty() && !fields.contains(',');
        if !one && query.get("fieldSelector").is_some_and(|fields| !is_name(fields)) {
            return Err(Status::bad_request("only the field metadata.name can be selected here"));
        }
        let selector = query.get("labelSelector").map(LabelSelector::parse).transpose()?;
        let meant = |object: &Object| {
            (info.name.is_empty() || object.name() == info.name)
                && selector.as_ref().is_none_or(|selector| one || selector.matches(object))
        };
        // All pods take long, as long lists do. What hosts tell is waited for without a turn: it takes as long as they take.
        let (kind, items) = match info.resource.as_str() {
            "nodes" => ("NodeMetrics", self.nodes(beside.read(self.objects(info, meant)).await?).await),
            _ => {
                let meant = |pod: &Object| host(pod).is_some() && meant(pod);
                ("PodMetrics", self.pods(beside.read(self.objects(info, meant)).await?).await)
            }
        };
        let api_version = format!("{GROUP}/{VERSION}");
        if !one {
            let list = json!({"kind": format!("{kind}List"), "apiVersion": api_version, "metadata": {}, "items": items});
            return Ok(answer(200, &list));
        }
        let (plural, name) = match kind {
            "NodeMetrics" => ("nodemetrics", info.name.clone()),
            _ => ("podmetrics", format!("{}/{}", info.namespace, info.name)),
        };
        let mut found = items.into_iter().next().ok_or_else(|| Status::not_found(GROUP, plural, &name))?;
        found["kind"] = kind.into();
        found["apiVersion"] = api_version.into();
        Ok(answer(200, &found))
    }

    async fn objects(
        &self,
        info: &RequestInfo,
        meant: impl Fn(&Object) -> bool,
    ) -> Result<Vec<Object>, Status> {
        let state = self.registry.state(Freshness::Any).await?;
        let RequestInfo { resource, namespace, name, .. } = info;
        // A pod's name alone stands for one in each namespace.
        if !name.is_empty() && (resource == "nodes" || !namespace.is_empty()) {
            let key = objects::key("", resource, namespace, name);
            let found = state.get(key.as_bytes()).and_then(|kv| load(kv).ok());
            return Ok(found.into_iter().filter(meant).collect());
        }
        let range = KeyRange::prefix(namespace_prefix("", resource, namespace));
        Ok(state.range(&range).filter_map(|kv| load(kv).ok()).filter(meant).collect())
    }

    async fn nodes(&self, nodes: Vec<Object>) -> Vec<Value> {
        let looks = self.looked_at(nodes.iter().map(|node| node.name().to_owned()).collect()).await;
        let of = |node: &Object| {
            let look = looks.get(node.name())?;
            let before = look.before.as_ref().and_then(|before| before.node.as_ref());
            let rate = between(before, look.last.node.as_ref()?)?;
            let mut item = self.item(node, &rate);
            item["usage"] = usage(&rate);
            Some(item)
        };
        nodes.iter().filter_map(of).collect()
    }

    async fn pods(&self, pods: Vec<Object>) -> Vec<Value> {
        let looks = self.looked_at(pods.iter().filter_map(host).map(str::to_owned).collect()).await;
        pods.iter().filter_map(|pod| self.pod(pod, &looks)).collect()
    }

    /// What a pod uses: all of its containers that run, or nothing if that can't be said of one.
    fn pod(&self, pod: &Object, looks: &BTreeMap<String, Looks>) -> Option<Value> {
        let look = looks.get(host(pod)?)?;
        let beginning = (pod.namespace().to_owned(), pod.name().to_owned(), String::new());
        let own = look.last.containers.range(beginning..);
        let own =
            own.take_while(|((namespace, name, _), _)| namespace == pod.namespace() && name == pod.name());
        let rates: Option<Vec<(&str, Rate)>> = own
            .map(|(container, used)| {
                let before = look.before.as_ref().and_then(|before| before.containers.get(container));
                Some((container.2.as_str(), between(before, used)?))
            })
            .collect();
        let rates = rates.filter(|rates| !rates.is_empty())?;
        let mut item = self.item(pod, &rates[0].1);
        let containers = rates.iter().map(|(name, rate)| json!({"name": name, "usage": usage(rate)}));
        item["containers"] = containers.collect();
        Some(item)
    }

    fn item(&self, object: &Object, rate: &Rate) -> Value {
        let mut metadata = json!({"name": object.name(), "creationTimestamp": self.registry.edge().time()});
        if !object.namespace().is_empty() {
            metadata["namespace"] = object.namespace().into();
        }
        if let Some(labels) = object.meta("labels") {
            metadata["labels"] = labels.clone();
        }
        json!({"metadata": metadata, "timestamp": rfc3339(rate.at), "window": duration(rate.window)})
    }
}

/// The host of a pod, if it has one and the pod has not ended.
fn host(pod: &Object) -> Option<&str> {
    let phase = pod.pointer("/status/phase").and_then(Value::as_str);
    let host = pod.pointer("/spec/nodeName").and_then(Value::as_str);
    host.filter(|host| !host.is_empty() && !matches!(phase, Some("Succeeded" | "Failed")))
}

fn usage(rate: &Rate) -> Value {
    json!({"cpu": format!("{}n", rate.nanocores), "memory": format!("{}Ki", rate.memory / 1024)})
}

/// A duration as Go writes it, in thousandths of a second.
fn duration(time: Duration) -> String {
    let (minutes, seconds) = (time.as_secs() / 60, time.as_secs() % 60);
    let thousandths = format!("{:03}", time.subsec_millis());
    let fraction = match thousandths.trim_end_matches('0') {
        "" => String::new(),
        digits => format!(".{digits}"),
    };
    if minutes > 0 { format!("{minutes}m{seconds}{fraction}s") } else { format!("{seconds}{fraction}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_written_as_go_does() {
        for (millis, text) in [(1_002, "1.002s"), (15_000, "15s"), (15_250, "15.25s"), (60_010, "1m0.01s")] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }
}
