//! The table of jobs.

use machinery::rules::{Column, age, number, text};
use machinery::{Object, time};
use serde_json::{Value, json};

use crate::kinds::workload::template_cells;

pub(super) const COLUMNS: &[Column] = &[
    Column::text("Name"),
    Column::text("Status"),
    Column::text("Completions"),
    Column::text("Duration"),
    Column::text("Age"),
    Column::wide("Containers"),
    Column::wide("Images"),
    Column::wide("Selector"),
];

pub(super) fn cells(object: &Object, now: i64) -> Vec<Value> {
    let mut cells = vec![
        json!(object.name()),
        status(object).into(),
        completions(object).into(),
        duration(object, now).into(),
        age(object, now),
    ];
    cells.extend(template_cells(object));
    cells
}

fn status(object: &Object) -> &'static str {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let holds =
        |kind: &str| conditions.into_iter().flatten().any(|c| c["type"] == kind && c["status"] == "True");
    match () {
        () if holds("Complete") => "Complete",
        () if holds("Failed") => "Failed",
        () if object.deletion_timestamp().is_some() => "Terminating",
        () if holds("Suspended") => "Suspended",
        () if holds("FailureTarget") => "FailureTarget",
        () if holds("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn completions(object: &Object) -> String {
    let done = number(object, "/status/succeeded");
    match object.pointer("/spec/completions").and_then(Value::as_i64) {
        Some(all) => format!("{done}/{all}"),
        None => match number(object, "/spec/parallelism") {
            parallel if parallel > 1 => format!("{done}/1 of {parallel}"),
            _ => format!("{done}/1"),
        },
    }
}

fn duration(object: &Object, now: i64) -> String {
    let seconds = |pointer: &str| time::Moment::parse(text(object, pointer)).map(|time| time.unix().0);
    let Some(start) = seconds("/status/startTime") else { return String::new() };
    time::human_duration(seconds("/status/completionTime").unwrap_or(now) - start)
}
