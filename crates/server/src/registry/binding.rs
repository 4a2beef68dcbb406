//! Placing a pod on a node.

use api::{Object, Status};
use serde_json::{Map, Value, json};

use super::update::BINDING;
use super::{Change, Named, Recorded, Registry};
use crate::clock;
use crate::http::Identity;

/// A request to place a pod.
pub(crate) struct Binding<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) pod: &'a str,
    /// The pod must be this one, if it is given.
    pub(crate) uid: Option<&'a str>,
    pub(crate) node: &'a str,
    pub(crate) dry_run: bool,
}

impl Registry {
    /// Places a pod that has no node yet; the answer is the pod.
    pub(crate) async fn bind(&self, who: &Identity, binding: &Binding<'_>) -> Result<Object, Status> {
        let resource =
            api::resource("", "v1", "pods").ok_or_else(|| Status::internal("pods are not served"))?;
        let named = Named { resource, namespace: binding.namespace, name: binding.pod };
        // As upstream: nobody owns a pod's node by placing it.
        let recorded = Recorded::Already;
        let change = Change { who, named, subresource: BINDING, dry_run: binding.dry_run, recorded };
        let written = self.change(&change, &|pod| assign(pod, binding, &clock::text(clock::now()))).await?;
        written.into_object()
    }
}

fn assign(pod: &Object, binding: &Binding<'_>, now: &str) -> Result<Object, Status> {
    let conflict = |why: String| Status::conflict("", "pods/binding", binding.pod, &why);
    if let Some(uid) = binding.uid.filter(|uid| *uid != pod.uid()) {
        let why =
            format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", pod.uid());
        return Err(conflict(why));
    }
    if pod.deletion_timestamp().is_some() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", binding.pod)));
    }
    if let Some(node) = pod.pointer("/spec/nodeName").and_then(Value::as_str).filter(|node| !node.is_empty())
    {
        return Err(conflict(format!("pod {} is already assigned to node {node:?}", binding.pod)));
    }
    let gates = pod.pointer("/spec/schedulingGates").and_then(Value::as_array);
    if gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", binding.pod)));
    }
    let mut pod = pod.clone();
    object_at(&mut pod, "spec").insert("nodeName".into(), json!(binding.node));
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    let conditions = object_at(&mut pod, "status").entry("conditions").or_insert_with(|| json!([]));
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Value::Array(list) = conditions {
        match list.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
            Some(condition) if condition["status"] == "True" => {}
            Some(condition) => *condition = scheduled,
            None => list.push(scheduled),
        }
    }
    Ok(pod)
}

fn object_at<'a>(object: &'a mut Object, field: &str) -> &'a mut Map<String, Value> {
    let value = object.0.entry(field).or_insert_with(|| json!({}));
    if !value.is_object() {
        *value = json!({});
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made an object just above"),
    }
}
