//! What kinds with a pod template have in common: a selector, the template, numbers.

use machinery::metadata::{validate_annotations, validate_label_key, validate_labels};
use machinery::name::{label_fault, label_value_fault};
use machinery::{Cause, Faults, LabelSelector, Object};
use serde_json::{Value, json};

use super::field::{items, part, paths, text};
use super::pod::{pod_warnings, set_pod_spec_defaults, validate_pod_spec};

pub(crate) fn set_template_defaults(object: &mut Object) {
    let template = object.0.get_mut("spec").and_then(|spec| spec.get_mut("template"));
    set_pod_template_defaults(template);
}

pub(crate) fn set_pod_template_defaults(template: Option<&mut Value>) {
    if let Some(spec) = template.and_then(|template| template.get_mut("spec")) {
        set_pod_spec_defaults(spec);
    }
}

pub(crate) fn set_default(object: &mut Object, field: &str, value: Value) {
    if let Some(Value::Object(spec)) = object.0.get_mut("spec") {
        spec.entry(field).or_insert(value);
    }
}

/// A number of the spec that may not be below zero.
pub(crate) fn validate_not_negative(object: &Object, field: &str, faults: &mut Faults) {
    let value = object.pointer(&format!("/spec/{field}")).unwrap_or(&Value::Null);
    validate_value_not_negative(value, format!("spec.{field}"), faults);
}

/// A number at `path` that may not be below zero.
pub(crate) fn validate_value_not_negative(value: &Value, path: String, faults: &mut Faults) {
    if value.as_i64().is_some_and(|number| number < 0) {
        faults.push(Cause::invalid(path, value, "must be greater than or equal to 0"));
    }
}

/// Numbers of a status: none below zero, and each of `parts` no more than `whole`.
pub(crate) fn validate_counts(
    object: &Object,
    others: &[&str],
    (whole, parts): (&str, &[&str]),
    faults: &mut Faults,
) {
    let null = Value::Null;
    let value = |field: &str| object.pointer(&format!("/status/{field}")).unwrap_or(&null);
    for field in [whole].iter().chain(parts).chain(others) {
        validate_value_not_negative(value(field), format!("status.{field}"), faults);
    }
    let all = value(whole).as_i64().unwrap_or_default();
    for field in parts {
        if value(field).as_i64().unwrap_or_default() > all {
            let why = format!("cannot be greater than status.{whole}");
            faults.push(Cause::invalid(format!("status.{field}"), value(field), &why));
        }
    }
}

/// Selector and template, which must fit each other.
pub(crate) fn validate_selector_and_template(object: &Object, kind: &str, faults: &mut Faults) {
    let spec = part(object, "spec");
    if validate_selector_of(spec, kind, faults) {
        validate_fits(LabelSelector::from_value(&spec["selector"]).as_ref(), &spec["template"], faults);
        validate_template(&spec["template"], "spec.template", faults);
        validate_always_restarts(&spec["template"], "spec.template", kind, faults);
    }
}

/// The selector of a spec; whether it can select, so that a template can be held against it.
pub(crate) fn validate_selector_of(spec: &Value, kind: &str, faults: &mut Faults) -> bool {
    let selector = &spec["selector"];
    if selector.is_null() {
        faults.push(Cause::required("spec.selector", ""));
        return true;
    }
    let selects = validate_selector(selector, "spec.selector", faults);
    if LabelSelector::from_value(selector).as_ref().is_some_and(LabelSelector::is_everything) {
        let why = format!("empty selector is invalid for {kind}");
        faults.push(Cause::invalid("spec.selector", selector, &why));
    }
    if !selects {
        faults.push(Cause::invalid("spec.selector", selector, "invalid label selector"));
    }
    selects
}

/// The selector must select what the template makes; one of everything does.
pub(crate) fn validate_fits(selector: Option<&LabelSelector>, template: &Value, faults: &mut Faults) {
    let labels = &template["metadata"]["labels"];
    let fits = selector.is_some_and(|selector| selector.matches_labels(|key| labels.get(key)?.as_str()));
    if !fits {
        let why = "`selector` does not match template `labels`";
        faults.push(Cause::invalid("spec.template.metadata.labels", labels, why));
    }
}

/// A pod template by itself.
pub(crate) fn validate_template(template: &Value, path: &str, faults: &mut Faults) {
    validate_template_metadata(template, path, faults);
    let spec = &template["spec"];
    let path = format!("{path}.spec");
    validate_pod_spec(spec, &path, faults);
    if spec["ephemeralContainers"].as_array().is_some_and(|list| !list.is_empty()) {
        let why = "ephemeral containers not allowed in pod template";
        faults.push(Cause::forbidden(format!("{path}.ephemeralContainers"), why));
    }
}

/// Labels and annotations of a pod template, which upstream names as if they stood beside its spec.
pub(crate) fn validate_template_metadata(template: &Value, path: &str, faults: &mut Faults) {
    let metadata = &template["metadata"];
    validate_labels(&metadata["labels"], &format!("{path}.labels"), faults);
    validate_annotations(&metadata["annotations"], &format!("{path}.annotations"), faults);
}

/// Pods that are replaced when they end are to run forever.
pub(crate) fn validate_always_restarts(template: &Value, path: &str, kind: &str, faults: &mut Faults) {
    let restart = &template["spec"]["restartPolicy"];
    if restart.as_str().is_some_and(|policy| policy != "Always") {
        faults.push(Cause::not_supported(format!("{path}.spec.restartPolicy"), restart, &["Always"]));
    }
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        faults.push(Cause::forbidden(format!("{path}.spec.activeDeadlineSeconds"), &why));
    }
}

/// Keys, operators and values of a `LabelSelector`; whether it can select.
pub(crate) fn validate_selector(selector: &Value, path: &str, faults: &mut Faults) -> bool {
    let mut own = Faults::default();
    validate_labels(&selector["matchLabels"], &format!("{path}.matchLabels"), &mut own);
    for (path, expression) in paths(&selector["matchExpressions"], &format!("{path}.matchExpressions")) {
        let values = items(&expression["values"]).len();
        match text(expression, "operator") {
            "In" | "NotIn" if values == 0 => {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                own.push(Cause::required(format!("{path}.values"), why));
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                own.push(Cause::forbidden(format!("{path}.values"), why));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let why = "not a valid selector operator";
                own.push(Cause::invalid(format!("{path}.operator"), &expression["operator"], why));
            }
        }
        validate_label_key(&json!(text(expression, "key")), &format!("{path}.key"), &mut own);
        for (path, value) in paths(&expression["values"], &format!("{path}.values")) {
            if let Some(why) = label_value_fault(value.as_str().unwrap_or_default()) {
                own.push(Cause::invalid(path, value, why));
            }
        }
    }
    let selects = own.is_empty();
    faults.append(own);
    selects
}

/// A selector says which pods belong to the object: it stays.
pub(crate) fn validate_selector_stays(object: &Object, old: &Object, faults: &mut Faults) {
    validate_stays(object, old, "/spec/selector", faults);
}

/// A field that stays as it was when the object was made.
pub(crate) fn validate_stays(object: &Object, old: &Object, pointer: &str, faults: &mut Faults) {
    let value = object.pointer(pointer);
    if value != old.pointer(pointer) {
        let path = pointer.trim_start_matches('/').replace('/', ".");
        faults.push(Cause::invalid(path, value.unwrap_or(&Value::Null), "field is immutable"));
    }
}

/// What the writer of an object with a pod template at `pointer` should hear: on a change only where it says something else.
pub(crate) fn template_warnings(object: &Object, old: Option<&Object>, pointer: &str) -> Vec<String> {
    // The whole spec, as upstream; a PodTemplate has none, and its template instead.
    let part = pointer[1..].split('/').next().unwrap_or_default();
    if old.is_some_and(|old| old.0.get(part) == object.0.get(part)) {
        return Vec::new();
    }
    let mut said = Vec::new();
    if old.is_none()
        && let Some(why) = label_fault(object.name())
    {
        said.push(format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{why}]"
        ));
    }
    if let Some(template) = object.pointer(pointer) {
        let path = pointer[1..].replace('/', ".");
        said.extend(pod_warnings(&template["metadata"], &template["spec"], &path));
    }
    said
}

/// The cells of the wide columns `Containers` and `Images` of the template at `pointer`.
pub(crate) fn container_cells(object: &Object, pointer: &str) -> [Value; 2] {
    let containers = object.pointer(&format!("{pointer}/spec/containers")).and_then(Value::as_array);
    let all = |field: &str| {
        let texts =
            containers.into_iter().flatten().map(|container| container[field].as_str().unwrap_or_default());
        Value::from(texts.collect::<Vec<_>>().join(","))
    };
    [all("name"), all("image")]
}

/// The cells of the wide columns `Containers`, `Images` and `Selector`.
pub(crate) fn template_cells(object: &Object) -> [Value; 3] {
    let [names, images] = container_cells(object, "/spec/template");
    let selector = object.pointer("/spec/selector").and_then(LabelSelector::from_value);
    [names, images, selector_cell(selector)]
}

/// A selector, or that there is none.
pub(crate) fn selector_cell(selector: Option<LabelSelector>) -> Value {
    let selector = selector.filter(|s| !s.is_everything()).map(|s| s.to_string());
    selector.unwrap_or_else(|| "<none>".into()).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_template_warns_again_only_when_it_changes() {
        for (pointer, part) in [("/template", "template"), ("/spec/template", "spec")] {
            let object = |name: &str| {
                let template = json!({"spec": {"containers": [{"name": name, "ports": [{"containerPort": 1}, {"containerPort": 1}]}]}});
                let part_of = if part == "spec" { json!({ "template": template }) } else { template };
                Object::from_value(json!({"metadata": {"name": "w"}, part: part_of})).unwrap()
            };
            let (old, new) = (object("a"), object("b"));
            assert_eq!(template_warnings(&old, None, pointer).len(), 1, "{pointer}");
            assert_eq!(template_warnings(&old, Some(&old), pointer), [""; 0], "{pointer}");
            assert_eq!(template_warnings(&new, Some(&old), pointer).len(), 1, "{pointer}");
        }
    }
}
