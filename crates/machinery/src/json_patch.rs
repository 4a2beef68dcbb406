//! JSON patch (RFC 6902) as the API server understands it: evanphx/json-patch 4.12, with its liberties.
//!
//! Indices may be negative and count from the end; a key that isn't there reads as `null`, so that `replace` adds it and
//! `test` against `null` passes. What must be there is the parent of a path, and whatever is removed.

use serde_json::{Map, Value};
use values::Budget;

use crate::pointer::tokens;
use crate::status::Status;

/// How many operations a patch may have, as upstream.
const MOST_OPERATIONS: usize = 10_000;
/// How much the `copy` operations of a patch may copy: they double an object otherwise without bound.
const LARGEST: usize = 3 * 1024 * 1024;
/// How deep a patch may nest values; what is read from JSON is half as deep at most.
const DEEPEST: usize = 256;
/// How many items the operations may move out of their way or look through, together: ten thousand operations at the
/// head of a long list would cost seconds else.
const MOST_STEPS: usize = 100_000_000;

/// Applies a patch.
///
/// # Errors
/// If it is no patch (400), too large (413), or doesn't apply (422).
pub(crate) fn apply(value: &mut Value, patch: &Value) -> Result<(), Status> {
    let no_patch = |why: &str| {
        Status::bad_request(format!("the patch is no list of JSON patch operations (RFC 6902): {why}"))
    };
    let operations = patch.as_array().ok_or_else(|| no_patch("it is no list"))?;
    if operations.len() > MOST_OPERATIONS {
        return Err(Status::too_large(format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut patching = Patching { copied: 0, copies: Budget::default(), steps: 0, deepest: 0 };
    patching.deepest = patching.depth(value)?;
    for operation in operations {
        let operation = operation.as_object().ok_or_else(|| no_patch("an operation is no object"))?;
        patching.operate(value, operation)?;
    }
    Ok(())
}

struct Patching {
    /// What was copied, as JSON in bytes.
    copied: usize,
    /// The same in memory.
    copies: Budget,
    steps: usize,
    /// A bound of the value's depth.
    deepest: usize,
}

/// Where a path leads: to a field or an item, there or not.
struct Slot<'a> {
    parent: &'a mut Value,
    key: String,
}

impl Patching {
    fn operate(&mut self, whole: &mut Value, operation: &Map<String, Value>) -> Result<(), Status> {
        let kind = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
        if !matches!(kind, "add" | "remove" | "replace" | "move" | "copy" | "test") {
            return Err(refused(format!("Unexpected kind: {}", values::cut(kind, 100))));
        }
        let text = |name: &str| {
            let missing = || refused(format!("{kind} operation failed to decode {name}: missing value"));
            operation.get(name).and_then(Value::as_str).ok_or_else(missing)
        };
        let path = text("path")?;
        let given = operation.get("value").unwrap_or(&Value::Null);
        match kind {
            "add" => self.add(place(whole, path, "add", "path")?, path, given.clone())?,
            "remove" => {
                self.remove(place(whole, path, "remove", "path")?, "remove", path)?;
            }
            "replace" => {
                self.grow(path, given)?;
                place(whole, path, "replace", "path")?.replace(path, given.clone())?;
            }
            "test" => {
                let place = place(whole, path, "test", "path")?;
                let found = place.get().map_err(|why| within("test", path, &why))?.unwrap_or(&Value::Null);
                if !equal(found, given) {
                    return Err(refused(format!(
                        "testing value {} failed: test failed",
                        values::cut(path, 200)
                    )));
                }
            }
            "move" => {
                let from = text("from")?;
                let taken = self.remove(place(whole, from, "move", "from path")?, "move", from)?;
                // Not measured: it was as deep at most before.
                self.deepest += path.matches('/').count();
                self.put(place(whole, path, "move", "destination path")?, path, taken)?;
            }
            _ => {
                let from = text("from")?;
                let source = place(whole, from, "copy", "from path")?;
                let found = source.get().map_err(|why| within("copy", from, &why))?.unwrap_or(&Value::Null);
                self.copied += size(found);
                if self.copied > LARGEST {
                    return Err(Status::too_large("the patch copies too much"));
                }
                self.copies.value(found).map_err(Status::too_large)?;
                let copy = found.clone();
                self.add(place(whole, path, "copy", "destination path")?, path, copy)?;
            }
        }
        if self.deepest > DEEPEST {
            self.deepest = self.depth(whole)?;
        }
        if self.deepest > DEEPEST {
            return Err(refused("the patch nests values too deeply"));
        }
        Ok(())
    }

    fn add(&mut self, place: Slot<'_>, path: &str, value: Value) -> Result<(), Status> {
        self.grow(path, &value)?;
        self.put(place, path, value)
    }

    fn put(&mut self, place: Slot<'_>, path: &str, value: Value) -> Result<(), Status> {
        match place.parent {
            Value::Array(list) if place.key == "-" => list.push(value),
            Value::Array(list) => {
                let at = index(&place.key, list.len() + 1).map_err(|why| within("add", path, &why))?;
                self.pay(list.len() - at)?;
                list.insert(at, value);
            }
            Value::Object(map) => {
                map.insert(place.key, value);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, place: Slot<'_>, kind: &str, path: &str) -> Result<Value, Status> {
        match place.parent {
            Value::Array(list) => {
                let at = index(&place.key, list.len()).map_err(|why| within(kind, path, &why))?;
                self.pay(list.len() - at)?;
                Ok(list.remove(at))
            }
            Value::Object(map) => map.remove(&place.key).ok_or_else(|| {
                let why = format!(
                    "Unable to remove nonexistent key: {}: missing value",
                    values::cut(&place.key, 200)
                );
                within(kind, path, &why)
            }),
            _ => Ok(Value::Null),
        }
    }

    fn pay(&mut self, steps: usize) -> Result<(), Status> {
        self.steps += steps;
        if self.steps > MOST_STEPS {
            return Err(Status::too_large("the patch takes too many steps"));
        }
        Ok(())
    }

    /// Notes how deep the whole is once `value` lies at `path`.
    fn grow(&mut self, path: &str, value: &Value) -> Result<(), Status> {
        let below = self.depth(value)?;
        self.deepest = self.deepest.max(path.matches('/').count() + below);
        Ok(())
    }

    fn depth(&mut self, value: &Value) -> Result<usize, Status> {
        let (mut deepest, mut steps) = (0, 0);
        measure(value, 0, &mut deepest, &mut steps);
        self.pay(steps)?;
        Ok(deepest)
    }
}

impl Slot<'_> {
    /// What is there; nothing for a key that isn't.
    fn get(&self) -> Result<Option<&Value>, String> {
        match &*self.parent {
            Value::Array(list) => index(&self.key, list.len()).map(|at| list.get(at)),
            other => Ok(other.get(&self.key)),
        }
    }

    fn replace(self, path: &str, value: Value) -> Result<(), Status> {
        match self.parent {
            Value::Array(list) => {
                let at = index(&self.key, list.len()).map_err(|_| {
                    let path = values::cut(path, 200);
                    refused(format!(
                        "replace operation does not apply: doc is missing key: {path}: missing value"
                    ))
                })?;
                list[at] = value;
            }
            Value::Object(map) => {
                map.insert(self.key, value);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The parent of what a path names. Upstream looks at nothing before the first `/`.
fn place<'a>(whole: &'a mut Value, path: &str, kind: &str, which: &str) -> Result<Slot<'a>, Status> {
    let missing = || {
        let path = values::cut(path, 200);
        refused(format!("{kind} operation does not apply: doc is missing {which}: {path:?}: missing value"))
    };
    let mut keys = tokens(path).peekable();
    let mut parent = whole;
    while let Some(key) = keys.next() {
        if keys.peek().is_none() {
            let fits = matches!(parent, Value::Array(_) | Value::Object(_));
            return if fits { Ok(Slot { parent, key: key.into_owned() }) } else { Err(missing()) };
        }
        let next = match parent {
            Value::Array(list) => {
                let at = index(&key, list.len()).map_err(|_| missing())?;
                list.get_mut(at)
            }
            Value::Object(map) => map.get_mut(&*key),
            _ => None,
        };
        parent = next.ok_or_else(missing)?;
    }
    Err(missing())
}

/// An index into `length` items; a negative one counts from the end.
fn index(key: &str, length: usize) -> Result<usize, String> {
    let invalid =
        || format!("Unable to access invalid index: {}: invalid index referenced", values::cut(key, 50));
    let number: i64 = key.parse().map_err(|_| invalid())?;
    let at = if number < 0 { number.checked_add_unsigned(length as u64) } else { Some(number) };
    at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < length).ok_or_else(invalid)
}

/// Whether two values say the same, numbers by their value.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
        }
        (a, b) => a == b,
    }
}

fn within(kind: &str, path: &str, why: &str) -> Status {
    refused(format!("error in {kind} for path: '{}': {why}", values::cut(path, 200)))
}

/// 422: the patch is well formed, and can't be done.
fn refused(why: impl std::fmt::Display) -> Status {
    let mut status = Status::new(422, "Invalid", format!("the patch doesn't apply: {why}"));
    status.details = Some(Box::default());
    status
}

fn measure(value: &Value, depth: usize, deepest: &mut usize, steps: &mut usize) {
    *deepest = depth.max(*deepest);
    *steps += 1;
    match value {
        Value::Array(list) => list.iter().for_each(|item| measure(item, depth + 1, deepest, steps)),
        Value::Object(map) => map.values().for_each(|item| measure(item, depth + 1, deepest, steps)),
        _ => {}
    }
}

/// Roughly how many bytes `value` has as JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 2,
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + 4 + size(value)).sum::<usize>() + 2,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(operations: Value) -> Result<Value, Status> {
        let mut value = json!({"data": {"a": "1", "n": null}, "list": ["a", "b", "c"], "text": "t"});
        apply(&mut value, &operations).map(|()| value)
    }

    /// The operations of evanphx/json-patch that RFC 6902 doesn't know.
    #[test]
    fn upstreams_liberties() {
        for (operations, pointer, expected) in [
            (json!([{"op": "replace", "path": "/data/yy", "value": "1"}]), "/data/yy", json!("1")),
            (
                json!([{"op": "test", "path": "/data/zz", "value": null}, {"op": "add", "path": "/data/zz", "value": "2"}]),
                "/data/zz",
                json!("2"),
            ),
            (json!([{"op": "test", "path": "/data/zz"}]), "/data/a", json!("1")),
            (json!([{"op": "test", "path": "/data/n", "value": null}]), "/data/a", json!("1")),
            (json!([{"op": "replace", "path": "/list/-1", "value": "x"}]), "/list", json!(["a", "b", "x"])),
            (json!([{"op": "remove", "path": "/list/-2"}]), "/list", json!(["a", "c"])),
            (json!([{"op": "add", "path": "/list/-1", "value": "x"}]), "/list", json!(["a", "b", "c", "x"])),
            (json!([{"op": "add", "path": "/list/-4", "value": "x"}]), "/list", json!(["x", "a", "b", "c"])),
            (json!([{"op": "test", "path": "/list/-1", "value": "c"}]), "/data/a", json!("1")),
            (json!([{"op": "move", "from": "/list/-1", "path": "/list/0"}]), "/list", json!(["c", "a", "b"])),
            (json!([{"op": "copy", "from": "/list/-1", "path": "/data/c"}]), "/data/c", json!("c")),
            (json!([{"op": "copy", "from": "/data/none", "path": "/data/c"}]), "/data/c", json!(null)),
            (json!([{"op": "add", "path": "/list/-", "value": "x"}]), "/list/3", json!("x")),
            (json!([{"op": "add", "path": "/data/x~1y~0z"}]), "/data/x~1y~0z", json!(null)),
            (json!([{"op": "add", "path": "data/list", "value": 1}]), "/list", json!(1)),
        ] {
            let value = patched(operations.clone()).unwrap_or_else(|status| panic!("{operations}: {status}"));
            assert_eq!(value.pointer(pointer), Some(&expected), "{operations}");
        }
    }

    #[test]
    fn what_does_not_apply_is_unprocessable() {
        for operation in [
            json!({"op": "bogus", "path": "/data"}),
            json!({"path": "/data"}),
            json!({"op": "add", "value": 1}),
            json!({"op": "add", "path": "", "value": {}}),
            json!({"op": "remove", "path": "/data/zz"}),
            json!({"op": "move", "from": "/data/zz", "path": "/data/a"}),
            json!({"op": "move", "path": "/data/a"}),
            json!({"op": "test", "path": "/data/a", "value": "2"}),
            json!({"op": "test", "path": "/data/a"}),
            json!({"op": "test", "path": "/none/a", "value": null}),
            json!({"op": "add", "path": "/none/a", "value": 1}),
            json!({"op": "replace", "path": "/none/a", "value": 1}),
            json!({"op": "replace", "path": "/list/3", "value": 1}),
            json!({"op": "replace", "path": "/list/-4", "value": 1}),
            json!({"op": "replace", "path": "/list/-", "value": 1}),
            json!({"op": "add", "path": "/list/4", "value": 1}),
            json!({"op": "add", "path": "/list/-5", "value": 1}),
            json!({"op": "add", "path": "/list/x", "value": 1}),
            json!({"op": "add", "path": "/text/x", "value": 1}),
            json!({"op": "remove", "path": "/list/3"}),
            json!({"op": "remove", "path": "/list/-4"}),
        ] {
            let status = patched(json!([operation])).unwrap_err();
            assert_eq!((status.code, status.reason), (422, "Invalid"), "{operation}: {status}");
        }
        assert_eq!(patched(json!({"op": "test"})).unwrap_err().code, 400);
        assert_eq!(patched(json!([1])).unwrap_err().code, 400);
    }

    #[test]
    fn work_is_bounded() {
        let head: Vec<Value> =
            (0..9000).map(|_| json!({"op": "add", "path": "/list/0", "value": 1})).collect();
        let mut value = json!({"list": vec![0; 1_000_000]});
        assert_eq!(apply(&mut value, &json!(head)).unwrap_err().code, 413);
        let double: Vec<Value> =
            (0..60).map(|_| json!({"op": "copy", "from": "/list", "path": "/list/-"})).collect();
        assert_eq!(patched(json!(double)).unwrap_err().code, 413);
    }
}
