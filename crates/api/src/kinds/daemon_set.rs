//! `DaemonSet`.

use machinery::rules::{Column, Rules, age, number};
use machinery::{Cause, Faults, LabelSelector, Object, Share, share};
use serde_json::{Map, Value, json};

use super::field::{part, text};
use super::workload::{
    selector_cell, set_default, set_template_defaults, template_cells, template_warnings,
    validate_always_restarts, validate_counts, validate_fits, validate_not_negative, validate_selector,
    validate_selector_stays, validate_template, validate_value_not_negative,
};

pub(crate) struct DaemonSet;

/// Where the API of old kept the generation of the template; clients still read it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

impl Rules for DaemonSet {
    fn made_up_annotation(&self) -> Option<&'static str> {
        Some(TEMPLATE_GENERATION)
    }

    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "updateStrategy", json!({}));
        set_default(object, "revisionHistoryLimit", 10.into());
        let strategy = object.0.get_mut("spec").and_then(|spec| spec.get_mut("updateStrategy"));
        if let Some(Value::Object(strategy)) = strategy {
            let kind = strategy.entry("type").or_insert_with(|| "RollingUpdate".into());
            if kind == "RollingUpdate"
                && let Value::Object(rolling) = strategy.entry("rollingUpdate").or_insert_with(|| json!({}))
            {
                rolling.entry("maxUnavailable").or_insert_with(|| 1.into());
                rolling.entry("maxSurge").or_insert_with(|| 0.into());
            }
        }
        set_template_defaults(object);
        let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
        if let Value::Object(annotations) = annotations {
            annotations.entry(TEMPLATE_GENERATION).or_insert_with(|| "0".into());
        }
    }

    fn prepare_create(&self, object: &mut Object) {
        set_template_generation(object, template_generation(object).max(1));
    }

    fn prepare_update(&self, subresource: &str, object: &mut Object, old: &Object) {
        if subresource == "status" {
            return;
        }
        let mut template = object.pointer("/spec/template").cloned().unwrap_or_default();
        // An empty one stays until the object is judged, and says nothing.
        if let Some(Value::Object(spec)) = template.get_mut("spec")
            && spec.get("overhead").and_then(Value::as_object).is_some_and(Map::is_empty)
        {
            spec.remove("overhead");
        }
        let changed = template != *old.pointer("/spec/template").unwrap_or(&Value::Null);
        set_template_generation(object, template_generation(old).saturating_add(i64::from(changed)));
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        validate_pods(part(object, "spec"), faults);
        for field in ["minReadySeconds", "revisionHistoryLimit"] {
            validate_not_negative(object, field, faults);
        }
        validate_strategy(object.pointer("/spec/updateStrategy").unwrap_or(&Value::Null), faults);
    }

    fn validate_update(&self, subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        if subresource == "status" {
            let counts =
                ["currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"];
            let others =
                ["observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable"];
            for field in counts.iter().chain(&others) {
                let value = object.pointer(&format!("/status/{field}")).unwrap_or(&Value::Null);
                validate_value_not_negative(value, format!("status.{field}"), faults);
            }
            validate_counts(object, &[], ("collisionCount", &[]), faults);
        } else {
            validate_selector_stays(object, old, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::integer("Desired"),
                Column::integer("Current"),
                Column::integer("Ready"),
                Column::integer("Up-to-date"),
                Column::integer("Available"),
                Column::text("Node Selector"),
                Column::text("Age"),
                Column::wide("Containers"),
                Column::wide("Images"),
                Column::wide("Selector"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let nodes = object.pointer("/spec/template/spec/nodeSelector").and_then(LabelSelector::from_labels);
        let mut cells = vec![
            json!(object.name()),
            number(object, "/status/desiredNumberScheduled").into(),
            number(object, "/status/currentNumberScheduled").into(),
            number(object, "/status/numberReady").into(),
            number(object, "/status/updatedNumberScheduled").into(),
            number(object, "/status/numberAvailable").into(),
            selector_cell(nodes),
            age(object, now),
        ];
        cells.extend(template_cells(object));
        cells
    }
}

fn template_generation(object: &Object) -> i64 {
    let annotation = object.meta("annotations").and_then(|all| all[TEMPLATE_GENERATION].as_str());
    annotation.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(object: &mut Object, generation: i64) {
    let annotations = object.metadata_mut().entry("annotations").or_insert_with(|| json!({}));
    if let Value::Object(annotations) = annotations {
        annotations.insert(TEMPLATE_GENERATION.into(), generation.to_string().into());
    }
}

/// Which pods, and what makes them. Of a selector that can't select, upstream says nothing more than what is wrong with it.
fn validate_pods(spec: &Value, faults: &mut Faults) {
    let (selector, template, path) = (&spec["selector"], &spec["template"], "spec.template");
    let selects = selector.is_null() || validate_selector(selector, "spec.selector", faults);
    let parsed = LabelSelector::from_value(selector);
    if selects {
        validate_fits(parsed.as_ref(), template, faults);
    }
    if parsed.as_ref().is_some_and(LabelSelector::is_everything) {
        let why = "empty selector is invalid for daemonset";
        faults.push(Cause::invalid("spec.selector", selector, why));
    }
    validate_template(template, path, faults);
    validate_always_restarts(template, path, "daemonset", faults);
}

fn validate_strategy(strategy: &Value, faults: &mut Faults) {
    let path = "spec.updateStrategy.rollingUpdate";
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "OnDelete" => return,
        "RollingUpdate" => {}
        // Upstream names the strategy, not its type.
        _ => {
            let choices = ["OnDelete", "RollingUpdate"];
            return faults.push(Cause::not_supported("spec.updateStrategy", strategy, &choices));
        }
    }
    if rolling.is_null() {
        return faults.push(Cause::required(path, ""));
    }
    let mut values = [0; 2];
    for (field, slot) in ["maxUnavailable", "maxSurge"].iter().zip(&mut values) {
        match share(&rolling[*field]) {
            Some(Share { number, percent }) => {
                *slot = number;
                if percent && number > 100 {
                    let why = "must not be greater than 100%";
                    faults.push(Cause::invalid(format!("{path}.{field}"), &rolling[*field], why));
                }
            }
            None => {
                // A text that says no number counts as 0.
                *slot = rolling[*field].as_i64().unwrap_or_default();
                let why = "must be an integer that is not negative, or a percentage such as 25%";
                faults.push(Cause::invalid(format!("{path}.{field}"), &rolling[*field], why));
            }
        }
    }
    match values {
        [0, 0] => {
            faults.push(Cause::required(format!("{path}.maxUnavailable"), "cannot be 0 when maxSurge is 0"));
        }
        [unavailable, surge] if unavailable != 0 && surge != 0 => {
            let why = "may not be set when maxUnavailable is non-zero";
            faults.push(Cause::invalid(format!("{path}.maxSurge"), &rolling["maxSurge"], why));
        }
        _ => {}
    }
}
