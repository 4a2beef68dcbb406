//! The class that is meant where an object names none: of storage, and of ingress.

use machinery::Object;
use objects::load;
use serde_json::{Value, json};
use store::{KeyRange, State};

use super::request::AdmissionRequest;

const INGRESS_MARK: &str = "ingressclass.kubernetes.io/is-default-class";
const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The name of the class that one of `marks`, as an annotation, says is the default. Of several it is the newest
/// one, and of those that are as new the first by name.
pub(super) fn newest_default(state: &State, group: &str, plural: &str, marks: &[&str]) -> Option<String> {
    let is_default = |class: &Object| {
        class.meta("annotations").is_some_and(|all| marks.iter().any(|mark| all[*mark] == "true"))
    };
    let mut found: Option<Object> = None;
    for kv in state.range(&KeyRange::prefix(objects::kind_prefix(group, plural))) {
        // A damaged class is nobody's default.
        let Some(class) = load(kv).ok().filter(is_default) else { continue };
        let made =
            |class: &Object| class.meta("creationTimestamp").and_then(Value::as_str).map(str::to_owned);
        if found.as_ref().is_none_or(|found| made(&class) > made(found)) {
            found = Some(class);
        }
    }
    found.map(|class| class.name().to_owned())
}

/// Gives a new ingress that says nothing of a class the default one, if there is one.
pub(super) fn set_for_ingress(request: &AdmissionRequest<'_>, ingress: &mut Object) {
    let old_way = ingress.meta("annotations").is_some_and(|all| all[INGRESS_ANNOTATION].is_string());
    if old_way || ingress.pointer("/spec/ingressClassName").is_some_and(|class| !class.is_null()) {
        return;
    }
    let class = newest_default(request.state, "networking.k8s.io", "ingressclasses", &[INGRESS_MARK]);
    if let (Some(class), Value::Object(spec)) = (class, ingress.0.entry("spec").or_insert_with(|| json!({})))
    {
        spec.insert("ingressClassName".into(), class.into());
    }
}
