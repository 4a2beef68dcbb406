//! `PersistentVolumeClaim`.

use cel::Quantity;
use machinery::name::{label_fault, subdomain_fault};
use machinery::rules::{Column, Rules, age, text};
use machinery::{Cause, Faults, Object};
use serde_json::{Map, Value, json};

use super::field::{part, text as text_of};
use super::pod::fraction;
use super::volume_cells::{ACCESS_MODES, CLASS_ANNOTATION, access_modes, or_unset, phase, storage_class};
use super::workload::validate_selector;

pub(crate) struct PersistentVolumeClaim;

/// The defaults of a claim, or of the template of one.
pub(crate) fn set_claim_defaults(claim: &mut Map<String, Value>) {
    if let Some(Value::Object(spec)) = claim.get_mut("spec") {
        spec.entry("volumeMode").or_insert_with(|| "Filesystem".into());
    }
    if let Value::Object(status) = claim.entry("status").or_insert_with(|| json!({})) {
        status.entry("phase").or_insert_with(|| "Pending".into());
    }
}

impl Rules for PersistentVolumeClaim {
    fn looks_at_metadata(&self) -> (usize, usize) {
        (1, 1)
    }

    fn answers_deleted_object(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        set_claim_defaults(&mut object.0);
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({ "phase": "Pending" }));
        normalize_sources(object, &Value::Null);
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        if subresource.is_empty() {
            normalize_sources(object, part(old, "spec"));
        }
    }

    fn warnings(&self, object: &Object, _old: Option<&Object>) -> Vec<String> {
        let has_class =
            object.meta("annotations").is_some_and(|annotations| annotations.get(CLASS_ANNOTATION).is_some());
        let why = "deprecated since v1.8; use \"storageClassName\" attribute instead";
        let of_class = has_class.then(|| format!("metadata.annotations[{CLASS_ANNOTATION}]: {why}"));
        of_class.into_iter().chain(claim_warnings(part(object, "spec"), "spec")).collect()
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_all_but_groups(part(object, "spec"), "spec", faults);
    }

    fn validate_create(&self, object: &Object, faults: &mut Faults) {
        validate_groups(part(object, "spec"), "spec", faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let capacity = object.pointer("/status/capacity").and_then(Value::as_object);
            for (resource, amount) in capacity.into_iter().flatten() {
                validate_amount(amount, format!("status.capacity[{resource}]"), false, faults);
            }
            return;
        }
        // Claims from before such groups were looked at can be written as they are.
        if SOURCES.iter().all(|source| part(old, "spec")[source]["apiGroup"].is_null()) {
            validate_groups(part(object, "spec"), "spec", faults);
        }
        let bound = text(object, "/status/phase") == "Bound";
        let fixed = |object: &Object| {
            let mut spec = object.0.get("spec")?.as_object()?.clone();
            if let Some(Value::Object(requests)) =
                spec.get_mut("resources").and_then(|all| all.get_mut("requests"))
                && bound
            {
                requests.remove("storage");
            }
            if bound {
                spec.remove("volumeAttributesClassName");
            }
            Some(spec)
        };
        let (mut new, before) = (fixed(object).unwrap_or_default(), fixed(old).unwrap_or_default());
        // A claim that is not bound gets its volume, and one without a class the default one.
        if text(old, "/spec/volumeName").is_empty() {
            match before.get("volumeName") {
                Some(name) => _ = new.insert("volumeName".into(), name.clone()),
                None => _ = new.remove("volumeName"),
            }
        }
        if old.pointer("/spec/storageClassName").is_none() {
            new.remove("storageClassName");
        }
        if new != before {
            let why = "spec is immutable after creation except resources.requests and \
                volumeAttributesClassName for bound claims";
            faults.push(Cause::forbidden("spec", why));
        }
        let storage = "/spec/resources/requests/storage";
        let amount = |object: &Object, pointer: &str| {
            let text = object.pointer(pointer).and_then(Value::as_str);
            text.and_then(|text| Quantity::parse(text).ok()).unwrap_or_default()
        };
        let (asked, had) = (amount(object, storage), amount(old, storage));
        if asked < had && asked <= amount(old, "/status/capacity/storage") {
            let why = "field can not be less than status.capacity";
            faults.push(Cause::forbidden("spec.resources.requests.storage", why));
        }
        // Upstream names it without the spec that it stands in.
        let mode = &part(object, "spec")["volumeMode"];
        if *mode != part(old, "spec")["volumeMode"] {
            faults.push(Cause::invalid("volumeMode", mode, "field is immutable"));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Status"),
                Column::text("Volume"),
                Column::text("Capacity"),
                Column::text("Access Modes"),
                Column::text("StorageClass"),
                Column::text("VolumeAttributesClass"),
                Column::text("Age"),
                Column::wide("VolumeMode"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let volume = text(object, "/spec/volumeName");
        let (mut capacity, mut modes) = ("", String::new());
        if !volume.is_empty() {
            capacity = text(object, "/status/capacity/storage");
            modes = access_modes(object.pointer("/status/accessModes"));
        }
        vec![
            json!(object.name()),
            phase(object).into(),
            volume.into(),
            capacity.into(),
            modes.into(),
            storage_class(object).into(),
            or_unset(object, "/spec/volumeAttributesClassName").into(),
            age(object, now),
            or_unset(object, "/spec/volumeMode").into(),
        ]
    }
}

/// What the writer of the spec of a claim should hear.
pub(crate) fn claim_warnings(spec: &Value, path: &str) -> Vec<String> {
    let odd = |kind: &str| {
        let why = fraction(&spec["resources"][kind]["storage"])?;
        Some(format!("{path}.resources.{kind}[storage]: {why}"))
    };
    ["requests", "limits"].into_iter().filter_map(odd).collect()
}

/// The fields with what a claim's volume is filled from.
const SOURCES: [&str; 2] = ["dataSource", "dataSourceRef"];

/// The faults of the spec of a claim.
pub(crate) fn validate_claim_spec(spec: &Value, path: &str, faults: &mut Faults) {
    validate_all_but_groups(spec, path, faults);
    validate_groups(spec, path, faults);
}

/// The groups of what a claim's volume is filled from.
fn validate_groups(spec: &Value, path: &str, faults: &mut Faults) {
    for source in SOURCES {
        let group = &spec[source]["apiGroup"];
        if let Some(why) = group.as_str().filter(|group| !group.is_empty()).and_then(subdomain_fault) {
            faults.push(Cause::invalid(format!("{path}.{source}.apiGroup"), group, why));
        }
    }
}

fn validate_all_but_groups(spec: &Value, path: &str, faults: &mut Faults) {
    validate_access_modes(&spec["accessModes"], &format!("{path}.accessModes"), faults);
    if !spec["selector"].is_null() {
        validate_selector(&spec["selector"], &format!("{path}.selector"), faults);
    }
    let field = format!("{path}.resources[storage]");
    match &spec["resources"]["requests"]["storage"] {
        Value::Null => faults.push(Cause::required(field, "")),
        amount => validate_amount(amount, field, true, faults),
    }
    for field in ["storageClassName", "volumeAttributesClassName"] {
        let name = spec[field].as_str().filter(|name| !name.is_empty());
        if let Some(why) = name.and_then(subdomain_fault) {
            faults.push(Cause::invalid(format!("{path}.{field}"), &spec[field], why));
        }
    }
    for field in SOURCES {
        if !spec[field].is_null() {
            validate_source(&spec[field], &format!("{path}.{field}"), faults);
        }
    }
    let (source, reference) = (&spec["dataSource"], &spec["dataSourceRef"]);
    // Only what both can say is compared; and the value that upstream means to show is empty.
    let differs = |field: &str| source[field] != reference[field];
    if !source.is_null() && !reference.is_null() && ["apiGroup", "kind", "name"].into_iter().any(differs) {
        faults.push(Cause::invalid(path, &json!({}), "must match dataSourceRef"));
    }
}

/// What a claim's volume is filled from.
fn validate_source(source: &Value, path: &str, faults: &mut Faults) {
    for part in ["name", "kind"] {
        if source[part].as_str().unwrap_or_default().is_empty() {
            faults.push(Cause::required(format!("{path}.{part}"), ""));
        }
    }
    let group = source["apiGroup"].as_str().unwrap_or_default();
    if group.is_empty() && source["kind"] != "PersistentVolumeClaim" {
        let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        faults.push(Cause::invalid(path, &source["kind"], why));
    }
    let namespace = &source["namespace"];
    if let Some(why) = namespace.as_str().filter(|text| !text.is_empty()).and_then(label_fault) {
        faults.push(Cause::invalid(format!("{path}.namespace"), namespace, why));
    }
}

/// Two names for one field, of which the older one takes claims and snapshots alone (KEP-1495): a client that sets one of them
/// means both. Sources of other namespaces (KEP-3294) upstream has switched off. What `old` has stays allowed.
fn normalize_sources(object: &mut Object, old: &Value) {
    let Some(Value::Object(spec)) = object.0.get_mut("spec") else { return };
    let is_elsewhere = |source: &Value| !text_of(source, "namespace").is_empty();
    if old["dataSourceRef"].is_null() && spec.get("dataSourceRef").is_some_and(is_elsewhere) {
        spec.remove("dataSourceRef");
    }
    let is_known = |source: &Value| {
        let group = source["apiGroup"].as_str().unwrap_or_default();
        match source["kind"].as_str() {
            Some("PersistentVolumeClaim") => group.is_empty(),
            Some("VolumeSnapshot") => group == "snapshot.storage.k8s.io",
            _ => false,
        }
    };
    let had_none = old["dataSource"].is_null() && old["dataSourceRef"].is_null();
    if had_none
        && !spec.contains_key("dataSourceRef")
        && spec.get("dataSource").is_some_and(|source| !is_known(source))
    {
        spec.remove("dataSource");
    }
    match (spec.get("dataSource").cloned(), spec.get("dataSourceRef").cloned()) {
        (Some(source), None) => _ = spec.insert("dataSourceRef".into(), source),
        (None, Some(mut source)) if !is_elsewhere(&source) => {
            if let Value::Object(source) = &mut source {
                source.remove("namespace");
            }
            spec.insert("dataSource".into(), source);
        }
        _ => {}
    }
}

/// How a volume may be used: at least one way, and one for a single pod alone.
pub(super) fn validate_access_modes(modes: &Value, path: &str, faults: &mut Faults) {
    let modes = modes.as_array().map_or(&[][..], Vec::as_slice);
    if modes.is_empty() {
        return faults.push(Cause::required(path, "at least 1 access mode is required"));
    }
    for mode in modes.iter().filter(|mode| !ACCESS_MODES.iter().any(|known| *mode == known)) {
        faults.push(Cause::not_supported(path, mode, &ACCESS_MODES));
    }
    let for_one_pod = |mode: &Value| mode == "ReadWriteOncePod";
    if modes.iter().any(for_one_pod) && !modes.iter().all(for_one_pod) {
        let why = "may not use ReadWriteOncePod with other access modes";
        faults.push(Cause::forbidden(path, why));
    }
}

/// An amount of storage.
pub(super) fn validate_amount(amount: &Value, field: String, positive: bool, faults: &mut Faults) {
    let Some(quantity) = amount.as_str().and_then(|text| Quantity::parse(text).ok()) else { return };
    if positive && quantity <= Quantity::from_units(0) {
        faults.push(Cause::invalid(field, amount, "must be greater than zero"));
    } else if quantity.is_negative() {
        faults.push(Cause::invalid(field, amount, "must be greater than or equal to 0"));
    }
}
