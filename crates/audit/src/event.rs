//! What is recorded of a request.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{Level, Stage};

/// An `Event` of `audit.k8s.io/v1`: a request at one of its stages.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    #[serde(flatten)]
    kind: Kind,
    /// How much is recorded.
    pub level: Level,
    /// What all events of one request have in common, and its answer in the header `Audit-Id`.
    #[serde(rename = "auditID")]
    pub audit_id: String,
    /// How far the request is.
    pub stage: Stage,
    /// Path and query.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Such as `get`; of what is no object the method in small letters.
    pub verb: String,
    /// Who asked, as a `UserInfo` of `authentication.k8s.io/v1`; empty where nobody knows.
    pub user: Value,
    /// As whom, where that is somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub impersonated_user: Option<Value>,
    /// The addresses that it came by. Only the last is known for sure: what stands before it is what others said.
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub source_ips: Vec<String>,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object_ref: Option<ObjectReference>,
    /// How it ended: a `Status` without what its kind is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_status: Option<Value>,
    /// What was sent, from level Request on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_object: Option<Value>,
    /// What was answered, from level RequestResponse on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_object: Option<Value>,
    /// When it came (RFC 3339, with microseconds).
    pub request_received_timestamp: String,
    /// When it was this far.
    pub stage_timestamp: String,
    /// What the parts that looked at it have to say.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The object that a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectReference {
    /// The plural, such as `pods`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource: String,
    /// Empty for the whole cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Empty for more than one object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Where the request names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Empty for the core group.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_group: String,
    /// The version in the path.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub api_version: String,
    /// Where the request names it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub resource_version: String,
    /// Empty for the object itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subresource: String,
}

/// `kind` and `apiVersion`, the same in all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Kind;

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([("kind", "Event"), ("apiVersion", "audit.k8s.io/v1")])
    }
}

impl Event {
    /// A request that has come at a time (RFC 3339, with microseconds), of which nothing else is known.
    pub fn received(level: Level, audit_id: String, at: String) -> Self {
        Event {
            kind: Kind,
            level,
            audit_id,
            stage: Stage::RequestReceived,
            request_uri: String::new(),
            verb: String::new(),
            user: Value::Object(serde_json::Map::new()),
            impersonated_user: None,
            source_ips: Vec::new(),
            user_agent: String::new(),
            object_ref: None,
            response_status: None,
            request_object: None,
            response_object: None,
            request_received_timestamp: at.clone(),
            stage_timestamp: at,
            annotations: BTreeMap::new(),
        }
    }

    /// Takes what was sent. What it says about its object that the path doesn't say goes into the reference.
    pub fn take_request(&mut self, object: Value) {
        if let Some(reference) = &mut self.object_ref {
            let text = |field: &str| {
                let found = object.pointer(&format!("/metadata/{field}")).and_then(Value::as_str);
                found.unwrap_or_default().to_owned()
            };
            for (known, field) in [
                (&mut reference.name, "name"),
                (&mut reference.uid, "uid"),
                (&mut reference.resource_version, "resourceVersion"),
            ] {
                if known.is_empty() {
                    *known = text(field);
                }
            }
        }
        self.request_object = Some(object);
    }
}

/// Takes the managed fields out of an object, of a list's items, or of what a table's rows carry.
pub fn without_managed_fields(value: &mut Value) {
    let strip = |object: &mut Value| {
        if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
            metadata.remove("managedFields");
        }
    };
    strip(value);
    if let Some(Value::Array(items)) = value.get_mut("items") {
        items.iter_mut().for_each(strip);
    }
    if let Some(Value::Array(rows)) = value.get_mut("rows") {
        rows.iter_mut().filter_map(|row| row.get_mut("object")).for_each(strip);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_upstream_s() {
        let mut event = Event::received(Level::Request, "id".into(), "2026-01-02T03:04:05.000006Z".into());
        event.object_ref = Some(ObjectReference {
            resource: "pods".into(),
            namespace: "shop".into(),
            api_version: "v1".into(),
            ..ObjectReference::default()
        });
        event.source_ips.push("10.0.0.1".into());
        let metadata = json!({"name": "web", "uid": "u", "resourceVersion": "7"});
        event.take_request(json!({"metadata": metadata}));
        assert_eq!(
            serde_json::to_value(&event).unwrap(),
            json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Request", "auditID": "id",
                "stage": "RequestReceived", "requestURI": "", "verb": "", "user": {},
                "sourceIPs": ["10.0.0.1"],
                "objectRef": {
                    "resource": "pods", "namespace": "shop", "apiVersion": "v1", "name": "web", "uid": "u",
                    "resourceVersion": "7",
                },
                "requestObject": {"metadata": metadata},
                "requestReceivedTimestamp": "2026-01-02T03:04:05.000006Z",
                "stageTimestamp": "2026-01-02T03:04:05.000006Z",
            })
        );
    }

    #[test]
    fn managed_fields_are_taken_out_wherever_objects_are() {
        let object = json!({"metadata": {"name": "a", "managedFields": [{}]}});
        for (mut value, expected) in [
            (object.clone(), json!({"metadata": {"name": "a"}})),
            (json!({"items": [object]}), json!({"items": [{"metadata": {"name": "a"}}]})),
            (
                json!({"rows": [{"object": object}]}),
                json!({"rows": [{"object": {"metadata": {"name": "a"}}}]}),
            ),
            (json!([{"op": "add"}]), json!([{"op": "add"}])),
            (json!(null), json!(null)),
        ] {
            without_managed_fields(&mut value);
            assert_eq!(value, expected);
        }
    }
}
