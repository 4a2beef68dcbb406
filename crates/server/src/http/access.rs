//! `SelfSubjectAccessReview`: what `kubectl auth can-i` asks.

use api::Status;
use serde_json::{Value, json};

use super::Identity;
use crate::authorize::{Attributes, may};

/// Answers the question in `review`.
pub(crate) fn review(who: &Identity, mut review: Value) -> Result<Value, Status> {
    if review.get("kind").and_then(Value::as_str) != Some("SelfSubjectAccessReview")
        || !review["spec"].is_object()
    {
        return Err(Status::bad_request("the body must be a SelfSubjectAccessReview with a spec"));
    }
    let spec = &review["spec"];
    let allowed = match spec.get("resourceAttributes").filter(|attributes| attributes.is_object()) {
        Some(attributes) => {
            let text = |field: &str| attributes.get(field).and_then(Value::as_str).unwrap_or_default();
            let wanted = Attributes {
                verb: text("verb"),
                group: text("group"),
                resource: text("resource"),
                subresource: text("subresource"),
                namespace: text("namespace"),
                name: text("name"),
            };
            may(who, &wanted)
        }
        // Everybody who is known may read discovery and health; the rest is the administrators'.
        None => {
            spec.pointer("/nonResourceAttributes/verb") == Some(&json!("get"))
                || who.is_in(super::identity::MASTERS)
        }
    };
    review["status"] = json!({"allowed": allowed});
    review["metadata"] =
        review.get("metadata").cloned().filter(Value::is_object).unwrap_or_else(|| json!({}));
    Ok(review)
}
