//! Inputs that can be made longer: a piece of one is repeated as often as one likes. What costs more than its length shows
//! there, however small it is in an input of the usual size.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Map, Value};

use crate::mutate;

/// An input of any length: its piece is repeated as often as one asks for.
pub type Growing<T = Vec<u8>> = Box<dyn Fn(usize) -> T>;

/// What lies deeper is refused while it is read, as bytes that grow show; a tree of it would overflow this program's own stack.
const DEEPEST: usize = 60;

/// How a node of a tree grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// It is there again and again, in a list.
    Repeat,
    /// So, with names and keys that differ.
    Number,
    /// It is there again and again, in a map.
    Spread,
    /// It lies in map in map.
    NestInMaps,
    /// It lies in list in list.
    NestInLists,
    /// Its text, or that of its first key, becomes long.
    Stretch,
}

const HOW: [How; 6] =
    [How::Repeat, How::Number, How::Spread, How::NestInMaps, How::NestInLists, How::Stretch];

/// A tree that grows at one node, or at two at once: what multiplies needs two.
pub(crate) fn tree(rng: &mut StdRng, value: Value) -> Growing<Value> {
    let nodes = mutate::count(&value);
    let places: Vec<(usize, How)> = (0..rng.random_range(1..=2))
        .map(|_| (rng.random_range(0..nodes), HOW[rng.random_range(0..HOW.len())]))
        .collect();
    Box::new(move |times| {
        let mut grown = value.clone();
        // From the back, so that the numbers of those before stay what they are.
        let mut places = places.clone();
        places.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
        for (at, how) in &places {
            if let Some(node) = mutate::node_mut(&mut grown, &mut { *at }) {
                grow(node, *how, times);
            }
        }
        grown
    })
}

fn grow(node: &mut Value, how: How, times: usize) {
    let name = |n: usize| format!("n{n}");
    match how {
        How::Repeat | How::Number => {
            let numbered = |mut item: Value, n: usize| {
                if how == How::Number {
                    number(&mut item, n);
                }
                item
            };
            match node {
                Value::Array(list) if !list.is_empty() => {
                    let item = list[0].clone();
                    list.extend((0..times).map(|n| numbered(item.clone(), n)));
                }
                // What holds a list's item is more often an item than a list.
                node => *node = (0..times).map(|n| numbered(node.clone(), n)).collect(),
            }
        }
        How::Spread => match node {
            Value::Object(map) if !map.is_empty() => {
                let value = map.values().next().cloned().unwrap_or_default();
                map.extend((0..times).map(|n| (name(n), value.clone())));
            }
            node => *node = Value::Object((0..times).map(|n| (name(n), node.clone())).collect()),
        },
        How::NestInMaps => {
            let key =
                node.as_object().and_then(|map| map.keys().next().cloned()).unwrap_or_else(|| "a".into());
            for _ in 0..times.min(DEEPEST) {
                let inner = node.take();
                *node = Value::Object(Map::from_iter([(key.clone(), inner)]));
            }
        }
        How::NestInLists => {
            for _ in 0..times.min(DEEPEST) {
                let inner = node.take();
                *node = Value::Array(vec![inner]);
            }
        }
        How::Stretch => match node {
            Value::String(text) if text.is_empty() => *text = "x".repeat(times),
            Value::String(text) => *text = text.repeat(times),
            Value::Object(map) if !map.is_empty() => {
                if let Some(key) = map.keys().next().cloned()
                    && let Some(value) = map.remove(&key)
                {
                    map.insert(format!("{key}{}", "x".repeat(times)), value);
                }
            }
            node => *node = Value::String("x".repeat(times)),
        },
    }
}

/// Gives an item a name of its own, where it has one.
fn number(item: &mut Value, n: usize) {
    match item {
        Value::String(text) => *text += &n.to_string(),
        Value::Object(map) => {
            for key in ["name", "key", "k", "type", "containerPort", "path"] {
                match map.get_mut(key) {
                    Some(Value::String(text)) => *text += &n.to_string(),
                    Some(value @ Value::Number(_)) => *value = n.into(),
                    _ => {}
                }
            }
        }
        _ => {}
    }
}

/// Pieces that parsers of texts don't like to see often.
const PIECES: &[&str] = &[
    "[",
    "{",
    "(",
    "]",
    "}",
    ")",
    "[[",
    "[{",
    "{\"a\":",
    "[]",
    "{}",
    "[],",
    "{},",
    ",",
    ":",
    "- ",
    "- - ",
    "? ",
    "a: ",
    "a: \n ",
    "a:\n- ",
    "&a ",
    "*a ",
    "&a [*a,",
    "*a,",
    "<<: *a\n",
    "!!map ",
    "!a ",
    "|\n",
    ">\n ",
    "'",
    "''",
    "\"",
    "\\",
    "\\\"",
    "\"\\u0041\"",
    "#",
    "# \n",
    "%",
    "---\n",
    "...\n",
    "\n",
    " ",
    "\t",
    "\r",
    "0",
    "9",
    "-",
    "1e",
    "0.",
    "true,",
    "\"a\":1,",
    "{a: b}, ",
    "!",
    "-(",
    "a.",
    "a[",
    "a && ",
    "a in (b),",
    "x,y,",
];

/// Bytes in which a piece is repeated, and another one behind it as often: some parsers only mind what is closed.
pub(crate) fn bytes(rng: &mut StdRng, input: &[u8]) -> Growing {
    let at = rng.random_range(0..=input.len());
    let own = |rng: &mut StdRng| {
        let from = rng.random_range(0..=input.len());
        input[from..(from + rng.random_range(1..12)).min(input.len())].to_vec()
    };
    let piece = |rng: &mut StdRng| match rng.random_range(0..4) {
        0 => own(rng),
        _ => PIECES[rng.random_range(0..PIECES.len())].as_bytes().to_vec(),
    };
    let open = piece(rng);
    let close = match rng.random_range(0..3) {
        0 => Vec::new(),
        1 => piece(rng),
        _ => open.iter().rev().filter_map(|byte| closing(*byte)).collect(),
    };
    let (head, tail) = match rng.random_range(0..3) {
        // The pieces alone.
        0 => (Vec::new(), Vec::new()),
        _ => (input[..at].to_vec(), input[at..].to_vec()),
    };
    Box::new(move |times| [&head[..], &open.repeat(times), &close.repeat(times), &tail].concat())
}

fn closing(byte: u8) -> Option<u8> {
    match byte {
        b'[' => Some(b']'),
        b'{' => Some(b'}'),
        b'(' => Some(b')'),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_grows_grows_without_end() {
        for seed in 0..200 {
            let rng = &mut StdRng::seed_from_u64(seed);
            let tree = tree(rng, json!({"a": [{"name": "x"}, 1], "b": {"c": "d"}}));
            let sizes = [10, 20, 40].map(|times| tree(times).to_string().len());
            assert!(sizes[0] < sizes[1] && sizes[1] < sizes[2], "seed {seed}: {sizes:?}");
            let bytes = bytes(rng, b"{\"a\": [1]}");
            assert!(bytes(10).len() <= bytes(20).len());
        }
        let mut nested = json!({"a": 1});
        grow(&mut nested, How::NestInMaps, 2);
        assert_eq!(nested, json!({"a": {"a": {"a": 1}}}));
        let mut named = json!([{"name": "x"}]);
        grow(&mut named, How::Number, 2);
        assert_eq!(named, json!([{"name": "x"}, {"name": "x0"}, {"name": "x1"}]));
    }
}
