//! `componentstatuses`: what of the control plane is well, as clients of old ask for it.

use http::{HeaderMap, Response};
use machinery::{Object, Status};
use objects::Named;
use serde_json::{Value, json};

use super::objects::{include, object, selection};
use crate::http::negotiate::{Shape, accepted_for};
use crate::http::{Asked, Body};
use crate::registry::{Freshness, Registry};

/// The parts of a control plane by the names that upstream has for them; here all of them are the store's
/// leader.
const PARTS: [&str; 3] = ["controller-manager", "etcd-0", "scheduler"];

/// Answers get and list.
pub(crate) async fn read(
    registry: &Registry,
    asked: &Asked<'_>,
    headers: &HeaderMap,
) -> Result<Response<Body>, Status> {
    let target = asked.target;
    let accepted = accepted_for(headers, target.resource)?;
    // A read that needs the leader: it fails exactly when none of the parts can work.
    let fault = registry.state(Freshness::Newest).await.err().map(|status| status.message);
    let all = PARTS.iter().filter_map(|part| component(part, fault.as_deref()));
    if asked.verb != "list" {
        let named = Named { resource: target.resource, namespace: "", name: &target.name };
        let found =
            all.into_iter().find(|part| part.name() == target.name).ok_or_else(|| named.not_found())?;
        return object(target.resource, 200, found, accepted, asked.query, registry.edge().now());
    }
    let selection = selection(asked)?;
    let parts: Vec<Object> = all.filter(|part| selection.matches(part)).collect();
    let value = match accepted.shape {
        Shape::Table => machinery::table(
            target.resource,
            &parts,
            &json!({}),
            include(asked.query)?,
            registry.edge().now().as_second(),
        ),
        Shape::Metadata => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": {},
            "items": parts.iter().map(|part| machinery::partial_metadata(target.resource, part)).collect::<Value>(),
        }),
        Shape::Plain => {
            let items = parts.into_iter().map(|mut part| {
                part.0.remove("kind");
                part.0.remove("apiVersion");
                part.into_value()
            });
            json!({
                "kind": "ComponentStatusList", "apiVersion": "v1", "metadata": {},
                "items": items.collect::<Value>(),
            })
        }
    };
    accepted.encoding.answer(200, &value)
}

fn component(name: &str, fault: Option<&str>) -> Option<Object> {
    let condition = match fault {
        None => json!({ "type": "Healthy", "status": "True", "message": "ok" }),
        Some(fault) => json!({ "type": "Healthy", "status": "False", "message": fault }),
    };
    Object::from_value(json!({
        "kind": "ComponentStatus", "apiVersion": "v1", "metadata": { "name": name },
        "conditions": [condition],
    }))
}
