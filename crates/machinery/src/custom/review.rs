//! One question to a webhook that converts, and what its answer must be.
//!
//! Follows `pkg/apiserver/conversion/webhook_converter.go` of apiextensions-apiserver.

use serde_json::{Map, Value, json};

use crate::faults::Faults;
use crate::metadata::{validate_labels, validate_metadata};
use crate::object::Object;

const GROUP: &str = "apiextensions.k8s.io";

/// A question to a webhook: some objects, and the version in which they are wanted.
#[derive(Debug)]
pub struct ConversionReview {
    api_version: String,
    wanted: String,
    uid: String,
    /// What is converted, as errors name it: that of the first object.
    which: String,
    originals: Vec<Object>,
}

impl ConversionReview {
    /// The question for `originals`, none of which is in the version `wanted`, under a `uid` of its own. `known` are the
    /// versions of ConversionReview that the webhook takes, as the definition lists them.
    pub fn new(known: &[String], originals: Vec<Object>, wanted: String, uid: String) -> Self {
        let known = known.iter().map(String::as_str).find(|version| matches!(*version, "v1" | "v1beta1"));
        let which =
            originals.first().map(|object| format!("{}, Kind={}", object.api_version(), object.kind()));
        ConversionReview {
            api_version: format!("{GROUP}/{}", known.unwrap_or("v1")),
            which: which.unwrap_or_default(),
            wanted,
            uid,
            originals,
        }
    }

    /// What is sent.
    pub fn body(&self) -> Value {
        let objects: Vec<Value> = self.originals.iter().map(|object| object.clone().into_value()).collect();
        json!({
            "kind": "ConversionReview", "apiVersion": self.api_version,
            "request": {"uid": self.uid, "desiredAPIVersion": self.wanted, "objects": objects},
        })
    }

    /// The error message when the webhook can't be asked.
    pub fn failed(&self, why: &str) -> String {
        format!("conversion webhook for {} failed: {why}", self.which)
    }

    /// The converted objects in an answer, in the order of the originals.
    ///
    /// # Errors
    /// What is wrong with the answer, in upstream's words.
    pub fn read(mut self, answer: Value) -> Result<Vec<Object>, String> {
        let converted = self.objects_in(answer).map_err(|why| self.failed(&why))?;
        let originals = std::mem::take(&mut self.originals);
        if converted.len() != originals.len() {
            let (which, got, expected) = (&self.which, converted.len(), originals.len());
            return Err(format!(
                "conversion webhook for {which} returned {got} objects, expected {expected}"
            ));
        }
        let pairs = originals.into_iter().zip(converted).enumerate();
        pairs.map(|(index, (original, object))| self.accept(index, original, object)).collect()
    }

    fn objects_in(&self, mut answer: Value) -> Result<Vec<Value>, String> {
        // The older version says neither reliably.
        let strict = !self.api_version.ends_with("beta1");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&answer["apiVersion"]), text(&answer["kind"]));
        if strict && (version != self.api_version || kind != "ConversionReview") {
            let expected = &self.api_version;
            return Err(format!(
                "expected webhook response of {expected}, Kind=ConversionReview, got {version}, Kind={kind}"
            ));
        }
        let mut response = answer["response"].take();
        if !response.is_object() {
            return Err("no response provided".to_owned());
        }
        let uid = text(&response["uid"]);
        if strict && uid != self.uid {
            return Err(format!("expected response.uid={:?}, got {uid:?}", self.uid));
        }
        let (status, message) = (text(&response["result"]["status"]), text(&response["result"]["message"]));
        match (status.as_str(), message.as_str()) {
            ("Success", _) => {}
            (_, "") => return Err(format!("response.result.status was '{status}', not 'Success'")),
            _ => return Err(message),
        }
        match response["convertedObjects"].take() {
            Value::Array(objects) => Ok(objects),
            _ => Ok(Vec::new()),
        }
    }

    fn accept(&self, index: usize, original: Object, converted: Value) -> Result<Object, String> {
        let returned = |what: &str, why: &str| {
            format!("conversion webhook for {} returned {what} at index {index}: {why}", self.which)
        };
        let invalid = |why: String| returned("invalid converted object", &why);
        let found = Object::from_value(converted).ok_or_else(|| invalid("it is no object".to_owned()))?;
        let same = |what: &str, before: &str, after: &str| match before == after {
            true => Ok(()),
            false => Err(invalid(format!("must have the same {what}: {before} != {after}"))),
        };
        if found.api_version() != self.wanted {
            let (expected, got) = (&self.wanted, found.api_version());
            return Err(invalid(format!("invalid groupVersion (expected {expected}, received {got})")));
        }
        if found.kind() != original.kind() {
            let (expected, got) = (original.kind(), found.kind());
            return Err(invalid(format!("invalid kind (expected {expected}, received {got})")));
        }
        same("name", original.name(), found.name())?;
        same("namespace", original.namespace(), found.namespace())?;
        same("UID", original.uid(), found.uid())?;
        restore(original, found).map_err(|why| returned("invalid metadata in object", &why))
    }
}

/// The converted object with the metadata of the original, but for labels and annotations.
fn restore(mut original: Object, mut converted: Object) -> Result<Object, String> {
    let given = match converted.0.remove("metadata") {
        Some(Value::Object(given)) => given,
        Some(_) => return Err("invalid metadata in converted object".to_owned()),
        None => return Err("missing metadata in converted object".to_owned()),
    };
    let mut metadata = std::mem::take(original.metadata_mut());
    for field in ["labels", "annotations"] {
        match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
            }
            Some(Value::Object(new)) => {
                check(field, new, metadata.get(field))?;
                metadata.insert(field.to_owned(), new.clone().into());
            }
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        }
    }
    *converted.metadata_mut() = metadata;
    Ok(converted)
}

/// Labels or annotations that the webhook changed must be some.
fn check(field: &str, new: &Map<String, Value>, old: Option<&Value>) -> Result<(), String> {
    if let Some((key, _)) = new.iter().find(|(_, value)| !value.is_string()) {
        return Err(format!("metadata.{field}[{key}] must be a string in converted object"));
    }
    if old.and_then(Value::as_object) == Some(new) {
        return Ok(());
    }
    let mut faults = Faults::default();
    let value = Value::Object(new.clone());
    match field {
        "labels" => validate_labels(&value, "metadata.labels", &mut faults),
        _ => validate_metadata(&json!({ "annotations": value }), "metadata", &mut faults),
    }
    let told: Vec<String> =
        faults.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
    match told.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        all => Err(format!("[{}]", all.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn widget(version: &str, name: &str) -> Value {
        json!({"kind": "Widget", "apiVersion": format!("example.com/{version}"),
            "metadata": {"name": name, "namespace": "n", "uid": "u", "labels": {"a": "b"}, "generation": 3}})
    }

    fn review(versions: &[&str], names: &[&str]) -> ConversionReview {
        let known: Vec<String> = versions.iter().map(|version| (*version).to_owned()).collect();
        let originals = names.iter().map(|name| Object::from_value(widget("v1", name)).unwrap()).collect();
        ConversionReview::new(&known, originals, "example.com/v2".into(), "id".into())
    }

    fn answer(objects: Value) -> Value {
        json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
            "response": {"uid": "id", "result": {"status": "Success"}, "convertedObjects": objects}})
    }

    #[test]
    fn what_is_asked_names_the_objects_and_the_version() {
        let body = review(&["v9", "v1beta1", "v1"], &["a", "b"]).body();
        assert_eq!(body["apiVersion"], "apiextensions.k8s.io/v1beta1", "the first that is known");
        assert_eq!(body["request"]["desiredAPIVersion"], "example.com/v2");
        assert_eq!(body["request"]["objects"][1], widget("v1", "b"));
    }

    #[test]
    fn labels_and_annotations_may_change_and_no_other_metadata() {
        let mut given = widget("v2", "a");
        given["spec"] = json!({"x": 1});
        given["metadata"]["labels"] = json!({"new": "label"});
        given["metadata"]["annotations"] = json!({"kept": "there"});
        given["metadata"]["generation"] = json!(99);
        given["metadata"]["finalizers"] = json!(["sneaked/in"]);
        let objects = review(&["v1"], &["a"]).read(answer(json!([given]))).unwrap();
        let metadata = objects[0].0["metadata"].clone();
        let expected = json!({"name": "a", "namespace": "n", "uid": "u", "labels": {"new": "label"}, "generation": 3,
            "annotations": {"kept": "there"}});
        assert_eq!((metadata, &objects[0].0["spec"]["x"]), (expected, &json!(1)));
    }

    #[test]
    fn wrong_answers_are_told_in_upstreams_words() {
        let with = |pointer: &str, value: Value| {
            let mut object = widget("v2", "a");
            *object.pointer_mut(pointer).unwrap() = value;
            answer(json!([object]))
        };
        let mut other_uid = answer(json!([]));
        other_uid["response"]["uid"] = json!("x");
        let mut failed = answer(json!([]));
        failed["response"]["result"] = json!({"status": "Failure"});
        let mut told = failed.clone();
        told["response"]["result"]["message"] = json!("no way");
        let invalid = "returned invalid converted object at index 0: ";
        for (given, expected) in [
            (json!({}), "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind=".into()),
            (json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1"}), "failed: no response provided".into()),
            (other_uid, r#"failed: expected response.uid="id", got "x""#.to_owned()),
            (failed, "failed: response.result.status was 'Failure', not 'Success'".into()),
            (told, "failed: no way".into()),
            (answer(json!([])), "returned 0 objects, expected 1".into()),
            (answer(json!([1])), format!("{invalid}it is no object")),
            (
                with("/apiVersion", json!("example.com/v1")),
                format!("{invalid}invalid groupVersion (expected example.com/v2, received example.com/v1)"),
            ),
            (with("/kind", json!("Gadget")), format!("{invalid}invalid kind (expected Widget, received Gadget)")),
            (with("/metadata/name", json!("b")), format!("{invalid}must have the same name: a != b")),
            (with("/metadata/namespace", json!("")), format!("{invalid}must have the same namespace: n != ")),
            (with("/metadata/uid", json!("v")), format!("{invalid}must have the same UID: u != v")),
            (
                with("/metadata/labels", json!({"a": 1})),
                "returned invalid metadata in object at index 0: metadata.labels[a] must be a string in converted object".into(),
            ),
        ] {
            let found = review(&["v1"], &["a"]).read(given.clone()).unwrap_err();
            assert_eq!(found, format!("conversion webhook for example.com/v1, Kind=Widget {expected}"), "{given}");
        }
        let label = with("/metadata/labels", json!({"not a label": "x"}));
        let found = review(&["v1"], &["a"]).read(label).unwrap_err();
        assert!(found.contains("index 0: metadata.labels: Invalid value"), "{found}");
        // The older version needs neither its name nor the uid.
        let loose =
            json!({"response": {"result": {"status": "Success"}, "convertedObjects": [widget("v2", "a")]}});
        assert!(review(&["v1beta1"], &["a"]).read(loose).is_ok());
    }
}
