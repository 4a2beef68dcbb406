//! One operation of an OpenAPI v3 document.

use serde_json::{Map, Value, json};

use super::{META, REFERENCE};

const JSON: &str = "application/json";
const JSON_STREAM: &str = "application/json;stream=watch";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";
const YAML: &str = "application/yaml";
const TEXT: &str = "text/plain";
const ANY: &str = "*/*";

/// Parameters of lists and watches.
const OF_LISTS: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const OF_WRITES: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const OF_DELETES: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];

/// Whose operation it is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Of {
    BuiltIn,
    /// Of a kind that a definition made: told by another part of upstream, and told less.
    Custom,
}

/// What an operation does: upstream's `x-kubernetes-action`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Action {
    Get,
    List,
    Post,
    Put,
    Patch,
    Delete,
    DeleteCollection,
    Watch,
    WatchList,
    Connect,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::Get => "get",
            Action::List => "list",
            Action::Post => "post",
            Action::Put => "put",
            Action::Patch => "patch",
            Action::Delete => "delete",
            Action::DeleteCollection => "deletecollection",
            Action::Watch => "watch",
            Action::WatchList => "watchlist",
            Action::Connect => "connect",
        }
    }

    /// What the operation's id begins with.
    pub fn verb(self) -> &'static str {
        match self {
            Action::Get => "read",
            Action::Post => "create",
            Action::Put => "replace",
            Action::DeleteCollection => "delete",
            Action::WatchList => "watch",
            other => other.name(),
        }
    }

    /// The parameters of its query.
    pub fn parameters(self, of: Of) -> Vec<&'static str> {
        let mut all: Vec<&str> = match self {
            Action::Get if of == Of::Custom => vec!["resourceVersion"],
            Action::DeleteCollection if of == Of::Custom => OF_LISTS.into(),
            Action::Get | Action::Connect => Vec::new(),
            Action::List | Action::Watch | Action::WatchList => OF_LISTS.into(),
            Action::Post | Action::Put => OF_WRITES.into(),
            Action::Patch => [OF_WRITES, &["force"]].concat(),
            Action::Delete => OF_DELETES.into(),
            Action::DeleteCollection => {
                let of_lists =
                    OF_LISTS.iter().filter(|name| !matches!(**name, "allowWatchBookmarks" | "watch"));
                of_lists.chain(OF_DELETES).copied().collect()
            }
        };
        if self != Action::Connect {
            all.push("pretty");
        }
        all
    }

    /// The request's body, of the schema of that name where it is an object.
    pub fn request(self, schema: &str, of: Of) -> Option<Value> {
        let object = |schema: &str| {
            let schema = json!({ "schema": reference(schema) });
            match of {
                Of::BuiltIn => json!({ ANY: schema }),
                Of::Custom => json!({ JSON: schema, YAML: schema }),
            }
        };
        match self {
            Action::DeleteCollection if of == Of::Custom => None,
            Action::Post | Action::Put => Some(json!({ "content": object(schema), "required": true })),
            Action::Delete | Action::DeleteCollection => {
                Some(json!({ "content": object(&format!("{META}.DeleteOptions")) }))
            }
            Action::Patch => {
                let patch = json!({ "schema": reference(&format!("{META}.Patch")) });
                let kinds: &[&str] = &[
                    "apply-patch+yaml",
                    "json-patch+json",
                    "merge-patch+json",
                    "strategic-merge-patch+json",
                ];
                let kinds = if of == Of::Custom { &kinds[..3] } else { kinds };
                let content = kinds.iter().map(|kind| (format!("application/{kind}"), patch.clone()));
                Some(json!({ "content": content.collect::<Map<_, _>>(), "required": true }))
            }
            _ => None,
        }
    }

    /// The answers by their codes.
    pub fn responses(self, body: &Value, of: Of) -> Value {
        let codes: &[&str] = match self {
            Action::Patch if of == Of::Custom => &["200"],
            Action::Post => &["200", "201", "202"],
            Action::Put | Action::Patch => &["200", "201"],
            Action::Delete => &["200", "202"],
            _ => &["200"],
        };
        let types: &[&str] = match self {
            _ if of == Of::Custom => &[JSON, YAML],
            Action::List | Action::Watch | Action::WatchList => {
                &[JSON, JSON_STREAM, PROTOBUF, PROTOBUF_STREAM, YAML]
            }
            Action::Connect => &[ANY],
            _ => &[JSON, PROTOBUF, YAML],
        };
        responses(codes, types, body)
    }
}

fn responses(codes: &[&str], types: &[&str], schema: &Value) -> Value {
    let content: Map<_, _> =
        types.iter().map(|kind| ((*kind).to_owned(), json!({ "schema": schema }))).collect();
    let answers = codes.iter().map(|code| ((*code).to_owned(), json!({ "content": content })));
    // Upstream describes no answer to a request without a user.
    answers.chain([("401".to_owned(), json!({}))]).collect::<Map<_, _>>().into()
}

/// An operation that answers one thing, and does nothing to objects.
pub(super) fn plain(id: &str, tag: &str, schema: &Value, only_json: bool) -> Value {
    let types: &[&str] = if only_json { &[JSON] } else { &[JSON, PROTOBUF, YAML] };
    json!({ "operationId": id, "responses": responses(&["200"], types, schema), "tags": [tag] })
}

/// The answer of a log.
pub(super) fn log_responses() -> Value {
    responses(&["200"], &[JSON, PROTOBUF, YAML, TEXT], &text())
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("{REFERENCE}{schema}") })
}

/// A parameter as the documents describe it.
pub(super) fn parameter(place: &str, name: &str) -> Value {
    let kind = match name {
        "allowWatchBookmarks"
        | "follow"
        | "force"
        | "ignoreStoreReadErrorWithClusterBreakingPotential"
        | "insecureSkipTLSVerifyBackend"
        | "orphanDependents"
        | "previous"
        | "sendInitialEvents"
        | "stderr"
        | "stdin"
        | "stdout"
        | "timestamps"
        | "tty"
        | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "limitBytes" | "ports" | "sinceSeconds" | "tailLines"
        | "timeoutSeconds" => "integer",
        _ => "string",
    };
    let mut parameter = json!({ "in": place, "name": name });
    if place == "path" {
        parameter["required"] = true.into();
    }
    parameter["schema"] = json!({ "type": kind, "uniqueItems": true });
    parameter
}
