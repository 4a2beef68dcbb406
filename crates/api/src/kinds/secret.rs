//! `Secret`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object};
use serde_json::{Map, Value, json};

use super::config_map::{MOST_DATA, validate_immutable, validate_keys};

pub(crate) struct Secret;

impl Rules for Secret {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn sees_empties(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(Value::Object(plain)) = object.0.remove("stringData")
            && let Value::Object(data) = object.0.entry("data").or_insert_with(|| Map::new().into())
        {
            for (key, value) in plain {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
        let kind = object.0.entry("type").or_insert_with(|| "Opaque".into());
        if kind == "" {
            *kind = "Opaque".into();
        }
    }

    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let data = object.0.get("data");
        let text =
            |key: &str| data.and_then(|data| data.get(key)).and_then(Value::as_str).unwrap_or_default();
        let has_none = |key: &str| {
            let bytes = STANDARD.decode(text(key)).unwrap_or_default();
            !String::from_utf8_lossy(&bytes).contains("-----BEGIN ")
        };
        if object.0.get("type").is_none_or(|kind| kind != "kubernetes.io/tls") {
            return Vec::new();
        }
        let part =
            [("tls.crt", "certificate"), ("tls.key", "key")].into_iter().find(|(key, _)| has_none(key));
        part.map(|(_, part)| format!("tls: failed to find any PEM data in {part} input"))
            .into_iter()
            .collect()
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        if validate_keys(object, "data", faults) / 4 * 3 > MOST_DATA {
            faults.push(Cause::too_long("data", MOST_DATA));
        }
        let required: &[&str] = match object.0.get("type").and_then(Value::as_str) {
            Some("kubernetes.io/dockerconfigjson") => &[".dockerconfigjson"],
            Some("kubernetes.io/dockercfg") => &[".dockercfg"],
            Some("kubernetes.io/tls") => &["tls.crt", "tls.key"],
            Some("kubernetes.io/ssh-auth") => &["ssh-privatekey"],
            _ => &[],
        };
        let data = object.0.get("data");
        let names = ["password", "username"];
        if object.0.get("type").is_some_and(|kind| kind == "kubernetes.io/basic-auth")
            && names.iter().all(|key| data.and_then(|data| data.get(*key)).is_none())
        {
            faults.extend(names.map(|key| Cause::required(format!("data[{key}]"), "")));
        }
        for key in [".dockerconfigjson", ".dockercfg"].iter().filter(|key| required.contains(key)) {
            let text = data.and_then(|data| data.get(*key)).and_then(Value::as_str);
            let bytes = text.and_then(|text| STANDARD.decode(text).ok());
            if bytes.is_some_and(|bytes| serde_json::from_slice::<Map<String, Value>>(&bytes).is_err()) {
                let hidden = json!("<secret contents redacted>");
                faults.push(Cause::invalid(format!("data[{key}]"), &hidden, "must be a JSON object"));
            }
        }
        for key in required.iter().filter(|key| data.and_then(|data| data.get(**key)).is_none()) {
            faults.push(Cause::required(format!("data[{key}]"), ""));
        }
        if object.0.get("type").is_some_and(|kind| kind == "kubernetes.io/service-account-token")
            && object.meta("annotations").and_then(|a| a.get("kubernetes.io/service-account.name")).is_none()
        {
            let field = "metadata.annotations[kubernetes.io/service-account.name]";
            faults.push(Cause::required(field, ""));
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if object.0.get("type") != old.0.get("type") {
            let kind = object.0.get("type").unwrap_or(&Value::Null);
            faults.push(Cause::invalid("type", kind, "field is immutable"));
        }
        validate_immutable(object, old, &["data"], faults);
    }

    fn selectable(&self) -> &'static [(&'static str, &'static str)] {
        &[("type", "/type")]
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Type"), Column::text("Data"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let count = object.0.get("data").and_then(Value::as_object).map_or(0, |map| map.len());
        let kind = object.0.get("type").cloned().unwrap_or_else(|| "".into());
        vec![json!(object.name()), kind, count.into(), age(object, now)]
    }
}
