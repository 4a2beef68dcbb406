//! The parameters of a policy, as a binding names them.

use api::{LabelSelector, Object};
use serde_json::Value;
use store::KeyRange;

use super::configured::Binding;
use crate::admission::Request;
use crate::registry::load_as;

/// The objects to ask the policy with: one without parameters, or each that the binding names.
///
/// # Errors
/// If there are none, and the binding takes that for a fault.
pub(super) fn parameters(
    policy: &Value,
    binding: &Binding,
    request: &Request<'_>,
) -> Result<Vec<Option<Value>>, String> {
    let (kind, reference) = (&policy["paramKind"], &binding.spec["paramRef"]);
    if kind.is_null() || reference.is_null() {
        return Ok(vec![None]);
    }
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(kind, "apiVersion"), text(kind, "kind"));
    let resource = api::resource_of_kind(&version, &kind).ok_or_else(|| {
        format!("failed to configure policy: failed to find resource referenced by paramKind: '{version}, Kind={kind}'")
    })?;
    let namespace = match (resource.namespaced, text(reference, "namespace")) {
        (false, _) => String::new(),
        (true, given) if !given.is_empty() => given,
        (true, _) if request.named.namespace.is_empty() => {
            return Err(
                "failed to configure binding: cannot use namespaced paramRef in policy binding that matches \
                cluster-scoped resources"
                    .to_owned(),
            );
        }
        (true, _) => request.named.namespace.to_owned(),
    };
    let (group, plural) = resource.stored_under();
    let name = text(reference, "name");
    let mut found: Vec<Object> = Vec::new();
    if name.is_empty() {
        let selector = LabelSelector::from_value(&reference["selector"]);
        let prefix = match resource.namespaced {
            true => objects::namespace_prefix(group, plural, &namespace),
            false => objects::kind_prefix(group, plural),
        };
        let all = request.state.range(&KeyRange::prefix(prefix)).filter_map(|kv| load_as(resource, kv).ok());
        found.extend(all.filter(|object| selector.as_ref().is_some_and(|selector| selector.matches(object))));
    } else {
        let key = objects::key(group, plural, &namespace, &name);
        found.extend(request.state.get(key.as_bytes()).and_then(|kv| load_as(resource, kv).ok()));
    }
    if found.is_empty() && reference["parameterNotFoundAction"] != "Allow" {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(format!("failed to configure binding: {why}"));
    }
    Ok(found.into_iter().map(|object| Some(object.into_value())).collect())
}
