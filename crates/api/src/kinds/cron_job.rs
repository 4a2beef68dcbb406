//! `CronJob`.

use machinery::rules::{Column, Rules, age, text};
use machinery::{Cause, Faults, LabelSelector, Object, time};
use serde_json::{Value, json};

use super::job::{validate_job_spec, validate_restart};
use super::workload::{
    container_cells, selector_cell, set_default, set_pod_template_defaults, template_warnings,
    validate_not_negative,
};
use crate::cron;

pub(crate) struct CronJob;

/// A job's name has eleven characters more, and must still be a label's value.
const LONGEST_NAME: usize = 52;

impl Rules for CronJob {
    fn set_defaults(&self, object: &mut Object) {
        set_default(object, "concurrencyPolicy", "Allow".into());
        set_default(object, "suspend", false.into());
        set_default(object, "successfulJobsHistoryLimit", 3.into());
        set_default(object, "failedJobsHistoryLimit", 1.into());
        let job = object.0.get_mut("spec").and_then(|spec| spec.get_mut("jobTemplate"));
        let job = job.and_then(|job| job.get_mut("spec"));
        set_pod_template_defaults(job.and_then(|job| job.get_mut("template")));
    }

    fn prepare_create(&self, object: &mut Object) {
        object.0.insert("status".into(), json!({}));
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        template_warnings(object, old, "/spec/jobTemplate/spec/template")
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let null = Value::Null;
        let spec = object.0.get("spec").unwrap_or(&null);
        if object.name().len() > LONGEST_NAME {
            let why = format!("must be no more than {LONGEST_NAME} characters");
            faults.push(Cause::invalid("metadata.name", &json!(object.name()), &why));
        }
        validate_schedule(spec, faults);
        validate_not_negative(object, "startingDeadlineSeconds", faults);
        if spec["concurrencyPolicy"] == "" {
            faults.push(Cause::required("spec.concurrencyPolicy", ""));
        }
        for field in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
            validate_not_negative(object, field, faults);
        }
        validate_template(&spec["jobTemplate"], faults);
    }

    fn columns(&self) -> &'static [Column] {
        const {
            &[
                Column::text("Name"),
                Column::text("Schedule"),
                Column::text("Timezone"),
                Column::of("Suspend", "boolean"),
                Column::integer("Active"),
                Column::text("Last Schedule"),
                Column::text("Age"),
                Column::wide("Containers"),
                Column::wide("Images"),
                Column::wide("Selector"),
            ]
        }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let or_none = |text: &str| if text.is_empty() { "<none>".to_owned() } else { text.to_owned() };
        let suspended = match object.pointer("/spec/suspend").and_then(Value::as_bool) {
            Some(true) => "True",
            Some(false) => "False",
            None => "<unset>",
        };
        let last = match text(object, "/status/lastScheduleTime") {
            "" => "<none>".to_owned(),
            last => time::age(Some(last), now),
        };
        let [names, images] = container_cells(object, "/spec/jobTemplate/spec/template");
        let selector = object.pointer("/spec/jobTemplate/spec/selector").and_then(LabelSelector::from_value);
        vec![
            json!(object.name()),
            text(object, "/spec/schedule").into(),
            or_none(text(object, "/spec/timeZone")).into(),
            suspended.into(),
            object.pointer("/status/active").and_then(Value::as_array).map_or(0, Vec::len).into(),
            last.into(),
            age(object, now),
            names,
            images,
            selector_cell(selector),
        ]
    }
}

fn validate_schedule(spec: &Value, faults: &mut Faults) {
    let schedule = spec["schedule"].as_str().unwrap_or_default();
    if schedule.is_empty() {
        faults.push(Cause::required("spec.schedule", ""));
    } else if schedule.contains("TZ") {
        let why = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
        faults.push(Cause::invalid("spec.schedule", &spec["schedule"], why));
    } else if let Err(why) = cron::Schedule::parse(schedule) {
        faults.push(Cause::invalid("spec.schedule", &spec["schedule"], &why));
    }
    let zone = &spec["timeZone"];
    let why = match zone.as_str() {
        None => return,
        Some("") => "must be nil or non-empty string",
        Some(name) if name.eq_ignore_ascii_case("local") => {
            "must be an explicit time zone as defined in \
            https://www.iana.org/time-zones"
        }
        Some(name) if !cron::is_time_zone(name) => "unknown time zone",
        Some(_) => return,
    };
    faults.push(Cause::invalid("spec.timeZone", zone, why));
}

fn validate_template(template: &Value, faults: &mut Faults) {
    let path = "spec.jobTemplate";
    let spec = &template["spec"];
    let path = format!("{path}.spec");
    validate_job_spec(spec, &path, faults);
    if !spec["selector"].is_null() {
        let why = "`selector` will be auto-generated";
        faults.push(Cause::invalid(format!("{path}.selector"), &spec["selector"], why));
    }
    if spec["manualSelector"] == true {
        let why = &spec["manualSelector"];
        faults.push(Cause::not_supported(format!("{path}.manualSelector"), why, &["nil", "false"]));
    }
    validate_restart(spec, &path, faults);
}
