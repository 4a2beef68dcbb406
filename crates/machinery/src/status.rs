//! `Status`: how the API says that something went wrong.
//!
//! Codes and reasons follow `k8s.io/apimachinery/pkg/api/errors`.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An error of the API: becomes a `meta/v1 Status` and an HTTP code.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP code.
    pub code: u16,
    /// The machine-readable reason, such as `NotFound`.
    pub reason: &'static str,
    /// What happened, for people.
    pub message: String,
    /// What it happened to: `details` of the Status, with `name`, `group`, `kind` and `causes`.
    pub details: Option<Box<Details>>,
}

/// What an error is about.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The object's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The group of its resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Its resource (plural), or its kind where the upstream server says the kind.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// The object's uid.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Every single fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds after which to try again, 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
    /// Where a list that expired may go on, all the same: it stands in `metadata.continue`.
    #[serde(skip)]
    pub list_continue: String,
}

/// One fault of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cause {
    /// The kind of fault, such as `FieldValueRequired`; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What is wrong, for people.
    pub message: String,
    /// The field's path, such as `spec.replicas`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    /// A required field is missing.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        let field = field.into();
        let tail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
        Cause { reason: "FieldValueRequired".into(), message: format!("Required value{tail}"), field }
    }

    /// A value is not acceptable.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let message = format!("Invalid value: {value}: {detail}");
        Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }
    }

    /// A value is not acceptable that isn't shown: an object, or a list.
    pub fn invalid_part(field: impl Into<String>, detail: &str) -> Self {
        let message = format!("Invalid value: {detail}");
        Cause { reason: "FieldValueInvalid".into(), message, field: field.into() }
    }

    /// A value is not one of those supported.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", list.join(", "));
        Cause { reason: "FieldValueNotSupported".into(), message, field: field.into() }
    }

    /// A value stands there twice.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Cause {
            reason: "FieldValueDuplicate".into(),
            message: format!("Duplicate value: {value}"),
            field: field.into(),
        }
    }

    /// A value names something that isn't there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {value}");
        Cause { reason: "FieldValueNotFound".into(), message, field: field.into() }
    }

    /// A text, or all of a map, is longer than it may be, in bytes.
    pub fn too_long(field: impl Into<String>, most: usize) -> Self {
        let plural = if most == 1 { "" } else { "s" };
        let message = format!("Too long: may not be more than {most} byte{plural}");
        Cause { reason: "FieldValueTooLong".into(), message, field: field.into() }
    }

    /// A list or a map has more items than it may have.
    pub fn too_many(field: impl Into<String>, count: usize, most: usize) -> Self {
        let plural = if most == 1 { "" } else { "s" };
        let message = format!("Too many: {count}: must have at most {most} item{plural}");
        Cause { reason: "FieldValueTooMany".into(), message, field: field.into() }
    }

    /// A field may not be set, or not be changed.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        let message = format!("Forbidden: {detail}");
        Cause { reason: "FieldValueForbidden".into(), message, field: field.into() }
    }
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

impl Status {
    /// An error with nothing but code, reason and message.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Status { code, reason, message: message.into(), details: None }
    }

    /// 404: no object of that name.
    pub fn not_found(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(group, plural));
        Status::new(404, "NotFound", message).about(group, plural, name)
    }

    /// 409: an object of that name exists.
    pub fn already_exists(group: &str, plural: &str, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(group, plural));
        Status::new(409, "AlreadyExists", message).about(group, plural, name)
    }

    /// 409: the object changed since it was read, or a precondition failed.
    pub fn conflict(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let message =
            format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(group, plural));
        Status::new(409, "Conflict", message).about(group, plural, name)
    }

    /// 422: the object's fields are wrong.
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let told = |cause: &Cause| match cause.field.as_str() {
            "" => cause.message.clone(),
            field => format!("{field}: {}", cause.message),
        };
        let list: Vec<String> = causes.iter().map(told).collect();
        let list = if list.len() == 1 { list.concat() } else { format!("[{}]", list.join(", ")) };
        let message = format!("{} {name:?} is invalid: {list}", qualified(group, kind));
        let mut status = Status::new(422, "Invalid", message).about(group, kind, name);
        if let Some(details) = &mut status.details {
            details.causes = causes;
        }
        status
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Status::new(400, "BadRequest", message)
    }

    /// 403: not allowed; `name` is empty where the request is about no object of its own, as a list.
    pub fn forbidden(group: &str, plural: &str, name: &str, why: &str) -> Self {
        let resource = qualified(group, plural);
        let message = match name {
            "" => format!("{resource} is forbidden: {why}"),
            _ => format!("{resource} {name:?} is forbidden: {why}"),
        };
        Status::new(403, "Forbidden", message).about(group, plural, name)
    }

    /// 401: no known user.
    pub fn unauthorized() -> Self {
        Status::new(401, "Unauthorized", "Unauthorized")
    }

    /// 405: the resource has no such verb.
    pub fn method_not_allowed() -> Self {
        Status::new(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    /// 413: a request that would cost too much.
    pub fn too_large(why: impl std::fmt::Display) -> Self {
        Status::new(413, "RequestEntityTooLarge", format!("Request entity too large: {why}"))
    }

    /// 410: a revision that the history no longer holds.
    pub fn expired(message: impl Into<String>) -> Self {
        Status::new(410, "Expired", message)
    }

    /// 503: not now; try again.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Status::new(503, "ServiceUnavailable", message)
    }

    /// 500: our fault.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let message = message.to_string();
        let mut status = Status::new(500, "InternalError", format!("Internal error occurred: {message}"));
        let cause = Cause { reason: String::new(), message, field: String::new() };
        status.details = Some(Box::new(Details { causes: vec![cause], ..Details::default() }));
        status
    }

    /// The same error, naming what it is about.
    pub fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details = Some(Box::new(Details {
            name: name.into(),
            group: group.into(),
            kind: kind.into(),
            ..Details::default()
        }));
        self
    }

    /// The same error about a list, with the token by which the list may go on.
    pub fn continued(mut self, token: String) -> Self {
        self.details = Some(Box::new(Details { list_continue: token, ..Details::default() }));
        self
    }

    /// The `meta/v1 Status` object.
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if let Some(details) = &self.details {
            if !details.list_continue.is_empty() {
                value["metadata"]["continue"] = details.list_continue.clone().into();
            } else {
                value["details"] = json!(details);
            }
        }
        value["code"] = self.code.into();
        value
    }
}

fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") }
}
