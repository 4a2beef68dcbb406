//! The bytes of a pod with its place in them.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use machinery::Status;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::json;
use serde_json::value::RawValue;

use super::Binding;

/// What of a stored pod is looked at; the rest is passed over.
#[derive(Deserialize)]
struct Pod<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow, default, deserialize_with = "there")]
    spec: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "there")]
    status: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow)]
    uid: Option<Cow<'a, str>>,
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec<'a> {
    #[serde(borrow, deserialize_with = "there")]
    node_name: Option<&'a RawValue>,
    scheduling_gates: Option<Vec<IgnoredAny>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus<'a> {
    #[serde(borrow, deserialize_with = "there")]
    conditions: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "there")]
    nominated_node_name: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Condition<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    status: Cow<'a, str>,
}

/// A field that is there, even if it is null.
fn there<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// A stored pod's uid, and the pod as it is once it has its place.
pub(super) fn placed(stored: &[u8], binding: &Binding<'_>, now: &str) -> Result<(String, Bytes), Status> {
    let pod: Pod<'_> = serde_json::from_slice(stored).map_err(damaged)?;
    let spec: Spec<'_> = read(pod.spec)?;
    let uid = pod.metadata.uid.unwrap_or_default();
    let conflict = |why: String| Status::conflict("", "pods/binding", binding.pod, &why);
    if let Some(wanted) = binding.uid.filter(|wanted| *wanted != uid) {
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
        )));
    }
    if pod.metadata.deletion_timestamp.is_some() {
        return Err(conflict(format!("pod {} is being deleted, cannot be assigned to a host", binding.pod)));
    }
    let node: Cow<'_, str> = read(spec.node_name)?;
    if !node.is_empty() {
        return Err(conflict(format!("pod {} is already assigned to node {node:?}", binding.pod)));
    }
    if spec.scheduling_gates.is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(format!("pod {} has non-empty .spec.schedulingGates", binding.pod)));
    }
    let mut splice = Splice { stored, edits: Vec::new() };
    let node = json!(binding.node).to_string();
    match spec.node_name {
        Some(raw) => splice.replace(raw, node),
        None => splice.put("spec", pod.spec, "nodeName", &node),
    }
    let scheduled = json!({
        "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now,
    });
    splice.put_condition(pod.status, &scheduled.to_string())?;
    Ok((uid.into_owned(), splice.done()))
}

/// What a field says; if it isn't there, or null, the same as nothing.
fn read<'a, T: Deserialize<'a> + Default>(field: Option<&'a RawValue>) -> Result<T, Status> {
    let read = field.map(|raw| serde_json::from_str::<Option<T>>(raw.get())).transpose();
    Ok(read.map_err(damaged)?.flatten().unwrap_or_default())
}

fn damaged(error: serde_json::Error) -> Status {
    Status::internal(format!("a stored pod is damaged: {error}"))
}

/// Bytes, and what is to stand in them instead of parts of them.
struct Splice<'a> {
    stored: &'a [u8],
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Splice<'a> {
    /// Where a part of the bytes lies.
    fn range(&self, part: &'a RawValue) -> Range<usize> {
        let start = part.get().as_ptr().addr() - self.stored.as_ptr().addr();
        start..start + part.get().len()
    }

    fn replace(&mut self, part: &'a RawValue, with: String) {
        let range = self.range(part);
        self.edits.push((range, with));
    }

    /// Puts a field that isn't there into one of the pod's objects, which is made if it isn't there either.
    fn put(&mut self, name: &str, object: Option<&'a RawValue>, field: &str, value: &str) {
        match object {
            Some(object) if object.get().starts_with('{') => {
                let start = self.range(object).start + 1;
                let comma = if is_empty(object) { "" } else { "," };
                self.edits.push((start..start, format!("{field:?}:{value}{comma}")));
            }
            Some(null) => self.replace(null, format!("{{{field:?}:{value}}}")),
            None => {
                // A pod has metadata, so that something stands before the end.
                let end = self.stored.iter().rposition(|byte| *byte == b'}').unwrap_or(0);
                self.edits.push((end..end, format!(",{name:?}:{{{field:?}:{value}}}")));
            }
        }
    }

    /// Where a field of an object lies, its name with it.
    fn field(&self, value: &'a RawValue) -> Range<usize> {
        let value = self.range(value);
        let mut quotes = (0..value.start).rev().filter(|at| self.stored[*at] == b'"');
        // Names of fields have no quotes in them.
        let start = quotes.nth(1).unwrap_or(value.start);
        start..value.end
    }

    /// Takes a field out of an object, with the comma that parts it from the next one, or the last one.
    fn remove(&mut self, value: &'a RawValue) {
        let mut range = self.field(value);
        let is_space = |at: &usize| self.stored[*at].is_ascii_whitespace();
        let next = (range.end..self.stored.len()).find(|at| !is_space(at));
        let last = (0..range.start).rev().find(|at| !is_space(at));
        match (next, last) {
            (Some(comma), _) if self.stored[comma] == b',' => range.end = comma + 1,
            (_, Some(comma)) if self.stored[comma] == b',' => range.start = comma,
            _ => {}
        }
        self.edits.push((range, String::new()));
    }

    /// Says that the pod is scheduled, and no longer for which node it is nominated (`ClearingNominatedNodeNameAfterBinding`,
    /// KEP-5278).
    fn put_condition(&mut self, status: Option<&'a RawValue>, scheduled: &str) -> Result<(), Status> {
        let known: PodStatus<'a> = read(status)?;
        match (known.conditions, known.nominated_node_name) {
            (None, None) => self.put("status", status, "conditions", &format!("[{scheduled}]")),
            (None, Some(nominated)) => {
                let field = self.field(nominated);
                self.edits.push((field, format!("\"conditions\":[{scheduled}]")));
            }
            (Some(list), nominated) => {
                nominated.into_iter().for_each(|nominated| self.remove(nominated));
                self.put_among(list, scheduled)?;
            }
        }
        Ok(())
    }

    fn put_among(&mut self, list: &'a RawValue, scheduled: &str) -> Result<(), Status> {
        if !list.get().starts_with('[') {
            self.replace(list, format!("[{scheduled}]"));
            return Ok(());
        }
        for raw in read::<Vec<&'a RawValue>>(Some(list))? {
            let condition: Condition<'_> = read(Some(raw))?;
            if condition.kind == "PodScheduled" {
                if condition.status != "True" {
                    self.replace(raw, scheduled.to_owned());
                }
                return Ok(());
            }
        }
        let end = self.range(list).end - 1;
        let comma = if is_empty(list) { "" } else { "," };
        self.edits.push((end..end, format!("{comma}{scheduled}")));
        Ok(())
    }

    fn done(mut self) -> Bytes {
        self.edits.sort_by_key(|(range, _)| range.start);
        let more: usize = self.edits.iter().map(|(_, with)| with.len()).sum();
        let mut out = Vec::with_capacity(self.stored.len() + more);
        let mut at = 0;
        for (range, with) in &self.edits {
            out.extend_from_slice(&self.stored[at..range.start]);
            out.extend_from_slice(with.as_bytes());
            at = range.end;
        }
        out.extend_from_slice(&self.stored[at..]);
        out.into()
    }
}

/// Whether nothing stands between the brackets.
fn is_empty(value: &RawValue) -> bool {
    let text = value.get();
    text[1..text.len() - 1].trim().is_empty()
}

#[cfg(test)]
mod tests {
    use machinery::Object;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn binding<'a>(uid: Option<&'a str>, node: &'a str) -> Binding<'a> {
        Binding { namespace: "d", pod: "p", uid, node, dry_run: false }
    }

    /// The same, of the whole object.
    fn plain(mut pod: Object, node: &str) -> Object {
        let at = |field: &str| pod.0.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
        let (mut spec, mut status) = (at("spec"), at("status"));
        spec.insert("nodeName".into(), node.into());
        let mut conditions = status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": NOW});
        match conditions.iter_mut().find(|condition| condition["type"] == "PodScheduled") {
            Some(known) if known["status"] == "True" => {}
            Some(known) => *known = scheduled,
            None => conditions.push(scheduled),
        }
        status.insert("conditions".into(), conditions.into());
        status.remove("nominatedNodeName");
        pod.0.insert("spec".into(), spec.into());
        pod.0.insert("status".into(), status.into());
        pod
    }

    fn text() -> BoxedStrategy<Value> {
        prop::sample::select(vec!["a", "{", "}]", "\"", "nodeName", "conditions", "\u{e9}\n", ""])
            .prop_map(Value::from)
            .boxed()
    }

    fn some(value: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
        prop_oneof![Just(None), Just(Some(Value::Null)), value.prop_map(Some)].boxed()
    }

    fn object<const N: usize>(fields: [(&'static str, Option<Value>); N]) -> Value {
        let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(fields.collect())
    }

    fn condition() -> impl Strategy<Value = Value> {
        let kind = prop::sample::select(vec!["Ready", "PodScheduled", "PodScheduled"]);
        let status = prop::sample::select(vec!["True", "False"]);
        (kind, status, text())
            .prop_map(|(kind, status, message)| json!({"type": kind, "status": status, "message": message}))
    }

    fn pod() -> impl Strategy<Value = Value> {
        let conditions = some(prop::collection::vec(condition(), 0..4).prop_map(Value::from));
        let status = some((conditions, some(text()), some(text())).prop_map(|(conditions, other, node)| {
            object([
                ("conditions", conditions),
                ("message", other.clone()),
                ("nominatedNodeName", node),
                ("zebra", other.clone()),
                ("apple", other),
            ])
        }));
        let node = some(Just(Value::from("")));
        let spec = some((node, some(text())).prop_map(|(node, other)| {
            object([("nodeName", node), ("a", other.clone()), ("z", other.map(|o| json!([{"nodeName": o}])))])
        }));
        (spec, status, text()).prop_map(|(spec, status, other)| {
            let mut pod = object([("spec", spec), ("status", status), ("zebra", Some(other.clone()))]);
            pod["metadata"] = json!({"uid": "u", "annotations": {"spec": other}});
            pod
        })
    }

    proptest! {
        #[test]
        fn the_bytes_are_those_of_the_changed_object(pod in pod(), indented in any::<bool>(), node in "[a-z\"]{1,9}") {
            let stored = if indented { serde_json::to_vec_pretty(&pod) } else { serde_json::to_vec(&pod) }.unwrap();
            let (uid, placed) = placed(&stored, &binding(None, &node), NOW).unwrap();
            let expected = plain(Object::from_value(pod).unwrap(), &node);
            prop_assert_eq!(serde_json::from_slice::<Object>(&placed).unwrap(), expected);
            prop_assert_eq!(uid, "u");
            // No name stands there twice, which a reader of maps wouldn't see.
            let names = |bytes: &[u8]| bytes.windows(11).filter(|window| *window == b"\"nodeName\":").count();
            prop_assert!(names(&placed) <= names(&stored) + 1);
        }
    }

    #[test]
    fn what_can_t_be_placed_is_refused_as_upstream_does() {
        let of = |pod: Value, uid| placed(pod.to_string().as_bytes(), &binding(uid, "n"), NOW).map(drop);
        let metadata = json!({"uid": "u"});
        for (pod, uid, why) in [
            (
                json!({"metadata": metadata}),
                Some("other"),
                "UID in precondition: other, UID in object meta: u",
            ),
            (json!({"metadata": {"uid": "u", "deletionTimestamp": NOW}}), Some("u"), "is being deleted"),
            (
                json!({"metadata": metadata, "spec": {"nodeName": "m"}}),
                None,
                "already assigned to node \"m\"",
            ),
            (
                json!({"metadata": metadata, "spec": {"schedulingGates": [{"name": "g"}]}}),
                None,
                "schedulingGates",
            ),
        ] {
            let refused = of(pod, uid).unwrap_err();
            assert_eq!(refused.code, 409);
            assert!(refused.message.contains(why), "{}", refused.message);
        }
        assert!(of(json!({"metadata": metadata, "spec": {"schedulingGates": []}}), Some("u")).is_ok());
        assert_eq!(of(json!([]), None).unwrap_err().code, 500);
    }
}
