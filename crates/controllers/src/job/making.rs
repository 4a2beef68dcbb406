//! The pods that a Job makes.

use machinery::Object;
use objects::{COMPLETION_INDEX, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use serde_json::{Value, json};

use super::kind::Job;
use super::members::FINALIZER;
use crate::pod_writes::from_template;

/// The variable by which containers learn their pod's index.
const VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The API adds five characters to a name of at most this length.
const LONGEST_PREFIX: usize = 58;

/// A pod of a Job without indexes, made of the Job as it is stored.
pub(super) fn pod(job: &Job, stored: &Value) -> Option<Value> {
    let generate_name = format!("{}-", job.metadata.name.as_deref()?);
    let mut pod = from_template(job, stored.pointer("/spec/template")?, &generate_name)?;
    let finalizers = &mut pod["metadata"]["finalizers"];
    match finalizers.as_array_mut() {
        Some(list) if list.iter().any(|finalizer| finalizer == FINALIZER) => {}
        Some(list) => list.push(FINALIZER.into()),
        None => *finalizers = json!([FINALIZER]),
    }
    Some(pod)
}

/// The pod of one index (KEP-2214): annotation, label, host name, and a variable in every container. With a limit for
/// each index, it carries how often the index has failed: in ways that count, and in others.
pub(super) fn indexed(job: &Job, pod: &Value, index: i32, failures: Option<(i32, i32)>) -> Option<Object> {
    let name = job.metadata.name.as_deref()?;
    let mut pod = pod.clone();
    let ending = format!("-{index}-");
    let room = LONGEST_PREFIX.saturating_sub(ending.len());
    let prefix = &name[..name.floor_char_boundary(room)];
    let metadata = &mut pod["metadata"];
    metadata["generateName"] = format!("{prefix}{ending}").into();
    metadata["labels"][COMPLETION_INDEX] = index.to_string().into();
    metadata["annotations"][COMPLETION_INDEX] = index.to_string().into();
    if let Some((counted, ignored)) = failures {
        metadata["annotations"][INDEX_FAILURES] = counted.to_string().into();
        if ignored > 0 {
            metadata["annotations"][INDEX_IGNORED_FAILURES] = ignored.to_string().into();
        }
    }
    pod["spec"]["hostname"] = format!("{name}-{index}").into();
    for list in ["initContainers", "containers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        containers.into_iter().flatten().for_each(add_variable);
    }
    Object::from_value(pod)
}

fn add_variable(container: &mut Value) {
    let path = format!("metadata.labels['{COMPLETION_INDEX}']");
    let variable = json!({"name": VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    match container.get_mut("env").and_then(Value::as_array_mut) {
        Some(all) if all.iter().any(|known| known["name"] == VARIABLE) => {}
        Some(all) => all.push(variable),
        None => container["env"] = json!([variable]),
    }
}
