//! The parameters of a policy, as a binding names them.
//!
//! Follows `CollectParams` of apiserver's `pkg/admission/plugin/policy/generic`.

use machinery::{LabelSelector, Object, Resource};
use objects::load;
use serde_json::Value;
use store::KeyRange;
use thiserror::Error;

use super::Outside;
use super::configured::Binding;
use crate::admission::AdmissionRequest;

/// Why there is nothing to ask a policy with.
#[derive(Debug, Error)]
pub(super) enum Misconfigured {
    #[error(
        "failed to configure policy: failed to find resource referenced by paramKind: '{version}, Kind={kind}'"
    )]
    UnknownKind { version: String, kind: String },
    #[error("failed to configure binding: {0}")]
    Binding(String),
}

impl Outside {
    /// The kind of a policy's parameters, if it has some.
    ///
    /// # Errors
    /// If no such kind is served.
    pub(super) fn kind_of_parameters(
        &self,
        policy: &Value,
        request: &AdmissionRequest<'_>,
    ) -> Result<Option<Resource>, Misconfigured> {
        let kind = &policy["paramKind"];
        if kind.is_null() {
            return Ok(None);
        }
        let (version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
        let found = match api::resource_of_kind(version, kind) {
            Some(resource) => Some(resource.clone()),
            None => {
                let definitions = self.definitions.at(request.state);
                definitions.catalog().resource_of_kind(version, kind).cloned()
            }
        };
        let unknown = || Misconfigured::UnknownKind { version: version.to_owned(), kind: kind.to_owned() };
        found.ok_or_else(unknown).map(Some)
    }

    /// The objects of the kind to ask the policy with: one without parameters, or each that the binding names, in the
    /// version that the policy names.
    ///
    /// # Errors
    /// If they can't be had, or there are none, and the binding takes that for a fault.
    pub(super) async fn parameters(
        &self,
        kind: Option<&Resource>,
        binding: &Binding,
        request: &AdmissionRequest<'_>,
    ) -> Result<Vec<Option<Value>>, Misconfigured> {
        let reference = &binding.spec["paramRef"];
        let (Some(resource), false) = (kind, reference.is_null()) else { return Ok(vec![None]) };
        let wrong = |why: &str| Misconfigured::Binding(why.to_owned());
        let namespace = match (resource.namespaced, text(reference, "namespace")) {
            (false, "") => "",
            (false, _) => {
                let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
                return Err(wrong(why));
            }
            (true, "") if request.named.namespace.is_empty() => {
                let why =
                    "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
                return Err(wrong(why));
            }
            (true, "") => request.named.namespace,
            (true, given) => given,
        };
        let (group, plural) = resource.stored_under();
        let name = text(reference, "name");
        let range = match (name, resource.namespaced) {
            ("", true) => KeyRange::prefix(objects::namespace_prefix(group, plural, namespace)),
            ("", false) => KeyRange::prefix(objects::kind_prefix(group, plural)),
            (name, _) => KeyRange::key(objects::key(group, plural, namespace, name)),
        };
        let stored = request.state.range(&range).cloned().collect();
        let served = self.converter.all_served(resource, stored).await;
        let served = served.map_err(|status| Misconfigured::Binding(status.message))?;
        let mut found: Vec<Object> = served.iter().filter_map(|kv| load(kv).ok()).collect();
        if name.is_empty() {
            let selector = LabelSelector::from_value(&reference["selector"]);
            found.retain(|object| selector.as_ref().is_some_and(|selector| selector.matches(object)));
        }
        if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
            return Err(wrong("no params found for policy binding with `Deny` parameterNotFoundAction"));
        }
        Ok(found.into_iter().map(|object| Some(object.into_value())).collect())
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}
