//! One field of a valid object at a time, set to what may be wrong with it, as a create and as an update.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::flat::{Flat, difference, flat, same};
use crate::house::House;
use crate::report::{Difference, hold, short};
use crate::{side_by_side, testdata};

/// How many rows are answered exactly alike at least, and how many with the same code.
const EXACT: usize = 47_831;
const CODES: usize = 47_833;

const OPTIONS: &str = "dryRun=All&fieldValidation=Strict";

/// What comes between two looks at an object where controllers run: no part of an update's difference.
fn is_beside(path: &str) -> bool {
    path.starts_with("status.") || matches!(path, "metadata.generation" | "spec.nodeName")
}

/// The object with the one field changed as the row says.
fn changed(object: &Value, row: &Value) -> Value {
    let mut object = object.clone();
    let steps = row["at"].as_array().unwrap();
    let (last, parents) = steps.split_last().unwrap();
    let mut at = &mut object;
    for (index, step) in parents.iter().enumerate() {
        let empty = if steps[index + 1].is_u64() { json!([]) } else { json!({}) };
        at = child(at, step, &empty);
        if !at.is_object() && !at.is_array() {
            *at = empty;
        }
    }
    match row["op"].as_str().unwrap() {
        "delete" => match (at, last.as_str(), last.as_u64()) {
            (Value::Object(map), Some(name), _) => _ = map.remove(name),
            (Value::Array(list), _, Some(index)) if (index as usize) < list.len() => {
                list.remove(index as usize);
            }
            _ => {}
        },
        "twice" => {
            let list = child(at, last, &Value::Null).as_array_mut().unwrap();
            list.push(list[0].clone());
        }
        _ => *child(at, last, &Value::Null) = row["value"].clone(),
    }
    object
}

/// The field or item that a step leads to, made if it isn't there.
fn child<'a>(at: &'a mut Value, step: &Value, empty: &Value) -> &'a mut Value {
    match step.as_u64() {
        Some(index) => {
            let list = at.as_array_mut().unwrap();
            while list.len() <= index as usize {
                list.push(empty.clone());
            }
            &mut list[index as usize]
        }
        None => at.as_object_mut().unwrap().entry(step.as_str().unwrap()).or_insert(Value::Null),
    }
}

/// What is kept of an answer.
fn kept(code: u16, answer: &Value, base: &Flat) -> Value {
    if code < 400 {
        return json!({"code": code, "diff": difference(&flat(answer), base)});
    }
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = answer.pointer("/details/causes").and_then(Value::as_array).into_iter().flatten();
    let mut causes: Vec<[String; 2]> = causes.map(|c| [text(&c["reason"]), text(&c["field"])]).collect();
    causes.sort();
    json!({"code": code, "reason": text(&answer["reason"]), "causes": causes})
}

/// Leaves out of an answer what is no part of an update's difference.
fn leave_out(answer: &mut Value) {
    if let Some(list) = answer.get_mut("diff").and_then(Value::as_array_mut) {
        list.retain(|field| !is_beside(field[0].as_str().unwrap()));
    }
}

/// A kind of difference: where, how changed, and the answers here and there.
fn kind(row: &Value, recorded: &Value, here: &Value) -> String {
    let names = row["at"].as_array().unwrap().iter().filter_map(Value::as_str);
    let path = names.collect::<Vec<_>>().join(".");
    let said = |answer: &Value| {
        let what = answer.get("diff").or(answer.get("causes")).unwrap_or(&Value::Null);
        format!("{} {}", answer["code"], short(what))
    };
    format!("{path} {}: recorded {}, here {}", row["op"].as_str().unwrap(), said(recorded), said(here))
}

#[derive(Default)]
struct Found {
    exact: usize,
    codes: usize,
    differences: Vec<Difference>,
}

/// Puts all rows of a base to a server.
async fn replay(house: &House, name: &str, base: &Value, rows: &[Value], found: &mut Found) {
    let (collection, object) = (base["path"].as_str().unwrap(), &base["object"]);
    let one = format!("{collection}/{}", object["metadata"]["name"].as_str().unwrap());
    let (creates, updates) = (format!("{collection}?{OPTIONS}"), format!("{one}?{OPTIONS}"));
    let mut base_differs = |verb: &str, code: u16, answer: Value| {
        let fields = if code < 300 { flat(&answer) } else { Flat::new() };
        let recorded: Flat = serde_json::from_value(base[verb].clone()).unwrap_or_default();
        let differs = difference(&fields, &recorded);
        if differs != json!([]) {
            let kind = format!("{name} {verb}: {code} {}", short(&differs));
            let all = json!({"base": name, "verb": verb, "differs": differs, "code": code, "answer": answer});
            found.differences.push(Difference { kind, all });
        }
        fields
    };
    let (code, answer) = house.ask("POST", &creates, Some(object.clone())).await;
    let created = base_differs("created", code, answer);
    let (code, answer) = house.ask("POST", collection, Some(object.clone())).await;
    assert_eq!(code, 201, "{name}: {answer}");
    // What is there, sent as it is, isn't written again.
    let (_, there) = house.ask("GET", &one, None).await;
    let (code, again) = house.ask("PUT", &one, Some(there.clone())).await;
    assert_eq!((code, &again), (200, &there), "{name}");
    let (code, answer) = house.ask("PUT", &updates, Some(object.clone())).await;
    let updated = base_differs("updated", code, answer);
    // Creates want nothing there.
    for verb in ["update", "create"] {
        if verb == "create" {
            gone(house, &one).await;
        }
        for row in rows.iter().filter(|row| row["verb"] == verb) {
            let object = changed(object, row);
            let (code, answer, base) = if verb == "create" {
                let (code, answer) = house.ask("POST", &creates, Some(object)).await;
                (code, answer, &created)
            } else {
                let (code, answer) = house.ask("PUT", &updates, Some(object)).await;
                (code, answer, &updated)
            };
            let (mut recorded, mut here) = (row["answer"].clone(), kept(code, &answer, base));
            if verb == "update" {
                leave_out(&mut recorded);
                leave_out(&mut here);
            }
            found.codes += usize::from(recorded["code"] == here["code"]);
            if same(&recorded, &here) {
                found.exact += 1;
            } else {
                let kind = kind(row, &recorded, &here);
                let mut all = row.clone();
                all["here"] = here;
                all["message"] = answer["message"].clone();
                found.differences.push(Difference { kind, all });
            }
        }
    }
}

async fn gone(house: &House, path: &str) {
    house.ask("DELETE", &format!("{path}?gracePeriodSeconds=0"), None).await;
    house.ask("PATCH", path, Some(json!({"metadata": {"finalizers": null}}))).await;
    let (code, answer) = house.ask("GET", path, None).await;
    assert_eq!(code, 404, "{answer}");
}

#[test]
fn changed_fields_are_answered_as_recorded() {
    let bases = testdata::bases();
    let mut rows: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for row in testdata::fields() {
        rows.entry(row["base"].as_str().unwrap().to_owned()).or_default().push(row);
    }
    let total = rows.values().map(Vec::len).sum();
    // The next part takes what is left of the longest ones.
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by_key(|(_, rows)| rows.len());
    let rows = std::sync::Mutex::new(rows);
    let found = side_by_side(vec![(), ()], async |()| {
        let house = House::new().await;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "sweep"}});
        house.ask("POST", "/api/v1/namespaces", Some(namespace)).await;
        house.account("sweep").await;
        let mut found = Found::default();
        loop {
            let next = rows.lock().unwrap().pop();
            let Some((name, rows)) = next else { break };
            replay(&house, &name, &bases[&name], &rows, &mut found).await;
        }
        found
    });
    let (exact, codes) = (found.iter().map(|f| f.exact).sum(), found.iter().map(|f| f.codes).sum());
    let differences: Vec<Difference> = found.into_iter().flat_map(|f| f.differences).collect();
    hold("sweep", &[("answers", exact, EXACT), ("codes", codes, CODES)], total, &differences);
}
