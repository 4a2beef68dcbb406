//! `APIService`.

use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, name};
use serde_json::{Value, json};

use super::field::{self, default, items, part, text};

pub(crate) struct ApiService;

impl Rules for ApiService {
    fn demands_version(&self) -> bool {
        true
    }

    fn set_defaults(&self, object: &mut Object) {
        if let Some(service) = object.0.get_mut("spec").and_then(|spec| spec.get_mut("service")) {
            default(service, "port", 443);
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        if part(object, "spec")["service"].is_null() {
            let now = object.meta("creationTimestamp").cloned().unwrap_or_default();
            let condition = json!({
                "type": "Available", "status": "True", "lastTransitionTime": now, "reason": "Local",
                "message": "Local APIServices are always available",
            });
            object.0.insert("status".into(), json!({ "conditions": [condition] }));
        }
    }

    fn name_fault(&self, name: &str) -> Option<&'static str> {
        field::segment_fault(name)
    }

    fn name_faults_in(&self, name: &str, object: &Object) -> Vec<&'static str> {
        let spec = part(object, "spec");
        let wanted = format!("{}.{}", text(spec, "version"), text(spec, "group"));
        let other = (name != wanted).then_some("must be `spec.version+\".\"+spec.group`");
        self.name_fault(name).or(other).into_iter().collect()
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let spec = part(object, "spec");
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        if group.is_empty() && version != "v1" {
            let why = "only v1 may have an empty group and it better be legacy kube";
            faults.push(Cause::required("spec.group", why));
        } else if !group.is_empty() {
            field::named(&spec["group"], "spec.group", name::subdomain_fault, faults);
        }
        field::named(&spec["version"], "spec.version", name::label_1035_fault, faults);
        for (field, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1_000)] {
            let value = &spec[field];
            if !value.as_i64().is_some_and(|number| (1..=most).contains(&number)) {
                let why = format!("must be positive and less than {most}");
                faults.push(Cause::invalid(format!("spec.{field}"), value, &why));
            }
        }
        let insecure = spec["insecureSkipTLSVerify"] == true;
        let bundled = !text(spec, "caBundle").is_empty();
        if spec["service"].is_null() {
            for (field, set) in [("caBundle", bundled), ("insecureSkipTLSVerify", insecure)] {
                if set {
                    let why = format!("local APIServices may not have {field}");
                    faults.push(Cause::invalid(format!("spec.{field}"), &spec[field], &why));
                }
            }
            return;
        }
        for field in ["namespace", "name"] {
            field::require(&spec["service"][field], format!("spec.service.{field}"), "", faults);
        }
        field::port_number(&spec["service"]["port"], "spec.service.port", faults);
        if insecure && bundled {
            let why = "may not be true if caBundle is present";
            faults.push(Cause::invalid("spec.insecureSkipTLSVerify", &true.into(), why));
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Service"), Column::text("Available"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let service = &part(object, "spec")["service"];
        let service = if service.is_null() {
            "Local".to_owned()
        } else {
            format!("{}/{}", text(service, "namespace"), text(service, "name"))
        };
        let conditions = items(&part(object, "status")["conditions"]);
        let available = match conditions.iter().find(|condition| condition["type"] == "Available") {
            None => "Unknown".to_owned(),
            Some(condition) if condition["status"] == "True" => "True".to_owned(),
            Some(condition) => format!("{} ({})", text(condition, "status"), text(condition, "reason")),
        };
        vec![object.name().into(), service.into(), available.into(), age(object, now)]
    }
}
