//! Changes by chance.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// Texts at which parsers turn.
const WORDS: [&str; 44] = [
    "",
    " ",
    "\u{0}",
    "a",
    "*",
    "-",
    "/",
    "~1",
    "~",
    "$patch",
    "$retainKeys",
    "$deleteFromPrimitiveList/finalizers",
    "$setElementOrder/containers",
    "replace",
    "delete",
    "merge",
    "name",
    "metadata",
    "f:spec",
    "k:{\"name\":\"a\"}",
    ".",
    "1e400",
    "-0",
    "9223372036854775807",
    "-9223372036854775809",
    "1Ei",
    "0.0000000001",
    "100%",
    "2026-02-30",
    "1970-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "10.0.0.0/33",
    "::ffff:1.2.3.4",
    "@every 1ns",
    "*/0 * * * *",
    "a in (b",
    "!a,b!=c,d notin (e,f)",
    "a=b,",
    "metadata.name=x,metadata.name!=x",
    "&a [*a]",
    "\u{fffd}",
    "\u{202e}x",
    "😀",
    "IntOrString",
];

fn pick<'a, T>(rng: &mut StdRng, list: &'a [T]) -> &'a T {
    &list[rng.random_range(0..list.len())]
}

/// A text at which parsers turn, or one of the corpus.
pub(crate) fn word(rng: &mut StdRng) -> &'static str {
    WORDS[rng.random_range(0..WORDS.len())]
}

/// Bytes with some changes; `others` is where pieces come from.
pub(crate) fn bytes(rng: &mut StdRng, mut input: Vec<u8>, others: &[u8]) -> Vec<u8> {
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=input.len());
        let end = (at + rng.random_range(0..32)).min(input.len());
        match rng.random_range(0..8) {
            0 if at < input.len() => input[at] ^= 1 << rng.random_range(0..8),
            1 if at < input.len() => input[at] = rng.random(),
            2 => _ = input.drain(at..end),
            3 => {
                let piece = input[at..end].to_vec();
                let times = rng.random_range(1..20);
                input.splice(at..at, piece.repeat(times));
            }
            4 => _ = input.splice(at..end, word(rng).bytes()),
            5 if !others.is_empty() => {
                let from = rng.random_range(0..others.len());
                let to = (from + rng.random_range(0..64)).min(others.len());
                input.splice(at..end, others[from..to].iter().copied());
            }
            6 => input.truncate(at),
            _ => input.insert(at, *pick(rng, b"{}[]\":,\\\0\x80\xff09-&*!|>%\n\t ")),
        }
    }
    input
}

/// A value of one node, of any type.
pub(crate) fn leaf(rng: &mut StdRng) -> Value {
    match rng.random_range(0..10) {
        0 => Value::Null,
        1 => json!(rng.random::<bool>()),
        2 => json!(*pick(rng, &[0, 1, -1, i64::MAX, i64::MIN, 65_536, 4_294_967_296])),
        3 => json!(*pick(rng, &[0.5, -0.0, 1e308, 1e-308, 18_446_744_073_709_551_615.0])),
        4 => json!(u64::MAX),
        5 => json!({}),
        6 => json!([]),
        7 => json!("x".repeat(rng.random_range(0..300))),
        _ => json!(word(rng)),
    }
}

/// A tree with some changes; pieces come from `other`.
pub(crate) fn tree(rng: &mut StdRng, mut value: Value, other: &Value) -> Value {
    for _ in 0..rng.random_range(1..5) {
        let nodes = count(&value);
        let at = rng.random_range(0..nodes);
        let piece = match rng.random_range(0..3) {
            0 => leaf(rng),
            _ => node(other, &mut rng.random_range(0..count(other))).cloned().unwrap_or_default(),
        };
        let Some(node) = node_mut(&mut value, &mut { at }) else { continue };
        match (rng.random_range(0..6), node) {
            (0, Value::Object(map)) => _ = map.insert(word(rng).to_owned(), piece),
            (1, Value::Object(map)) if !map.is_empty() => {
                let key = map.keys().nth(rng.random_range(0..map.len())).cloned().unwrap_or_default();
                map.remove(&key);
            }
            (0, Value::Array(list)) => list.push(piece),
            (1, Value::Array(list)) if !list.is_empty() => {
                let again = pick(rng, list).clone();
                list.extend(vec![again; rng.random_range(1..5)]);
            }
            (2, Value::Object(map)) => rename(rng, map),
            (_, node) => *node = piece,
        }
    }
    value
}

fn rename(rng: &mut StdRng, map: &mut Map<String, Value>) {
    let Some(key) = map.keys().nth(rng.random_range(0..map.len().max(1))).cloned() else { return };
    if let Some(value) = map.remove(&key) {
        map.insert(word(rng).to_owned(), value);
    }
}

/// How many nodes a tree has.
pub(crate) fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum::<usize>(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn node<'a>(value: &'a Value, at: &mut usize) -> Option<&'a Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter().find_map(|value| node(value, at)),
        Value::Object(map) => map.values().find_map(|value| node(value, at)),
        _ => None,
    }
}

/// The node of this number, in the order of a walk.
pub(crate) fn node_mut<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    match value {
        Value::Array(list) => list.iter_mut().find_map(|value| node_mut(value, at)),
        Value::Object(map) => map.values_mut().find_map(|value| node_mut(value, at)),
        _ => None,
    }
}
