//! `ComponentStatus`, which the server makes up when it is asked.

use machinery::Object;
use machinery::rules::{Column, Rules};
use serde_json::{Value, json};

pub(crate) struct ComponentStatus;

impl Rules for ComponentStatus {
    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("Status"), Column::text("Message"), Column::text("Error")] }
    }

    fn cells(&self, object: &Object, _now: i64) -> Vec<Value> {
        let conditions = object.0.get("conditions").and_then(Value::as_array);
        let healthy = conditions.into_iter().flatten().find(|condition| condition["type"] == "Healthy");
        let text = |field: &str| healthy.and_then(|c| c[field].as_str()).unwrap_or_default().to_owned();
        let status = match text("status").as_str() {
            "True" => "Healthy",
            "False" => "Unhealthy",
            _ => "Unknown",
        };
        vec![json!(object.name()), status.into(), text("message").into(), text("error").into()]
    }
}
