//! The options of a write in its query: `CreateOptions`, `UpdateOptions` and `PatchOptions` of meta/v1.

use http::HeaderMap;
use http::header::USER_AGENT;
use machinery::{Cause, FieldManager, Status, manager_of_user_agent};

use super::body::FieldValidation;
use super::query::Query;

/// How a write is to be done.
#[derive(Debug)]
pub(crate) struct WriteOptions {
    pub(crate) dry_run: bool,
    pub(crate) validation: FieldValidation,
    /// The field manager's name.
    pub(crate) manager: String,
    /// Whether an apply takes fields from other managers.
    pub(crate) force: bool,
}

impl WriteOptions {
    /// Reads them for a request with this verb.
    pub(crate) fn parse(
        query: &Query,
        headers: &HeaderMap,
        verb: &str,
        is_apply: bool,
    ) -> Result<Self, Status> {
        let kind = match verb {
            "create" => "CreateOptions",
            "update" => "UpdateOptions",
            "patch" => "PatchOptions",
            _ => "DeleteOptions",
        };
        let mut causes = Vec::new();
        let given = query.get("fieldManager").unwrap_or_default();
        if is_apply && given.is_empty() {
            causes.push(Cause::required("fieldManager", "is required for apply patch"));
        }
        if kind == "PatchOptions" && !is_apply && query.choice("force").is_some() {
            causes.push(Cause::forbidden("force", "may not be specified for non-apply patch"));
        }
        causes.extend(FieldManager::name_fault(given));
        let dry_runs: Vec<&str> = query.all("dryRun").filter(|value| !value.is_empty()).collect();
        if let Some(odd) = dry_runs.iter().find(|value| **value != "All") {
            causes.push(Cause::not_supported("dryRun", &(*odd).into(), &["All"]));
        }
        let validation = FieldValidation::parse(query).unwrap_or_else(|cause| {
            causes.push(cause);
            FieldValidation::Warn
        });
        if !causes.is_empty() {
            return Err(Status::invalid("meta.k8s.io", kind, "", causes));
        }
        let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
        let manager = if given.is_empty() { manager_of_user_agent(agent) } else { given.to_owned() };
        let force = is_apply && query.choice("force").unwrap_or_default();
        Ok(WriteOptions { dry_run: !dry_runs.is_empty(), validation, manager, force })
    }
}
