//! What was recorded: compressed, it takes a twentieth of the room.

use std::io::Read;

use flate2::read::GzDecoder;
use serde_json::Value;

fn text(compressed: &[u8]) -> String {
    let mut text = String::new();
    GzDecoder::new(compressed).read_to_string(&mut text).unwrap();
    text
}

fn lines(compressed: &[u8]) -> Vec<Value> {
    text(compressed).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn bases() -> Value {
    serde_json::from_str(&text(include_bytes!("../../../api/testdata/bases.json.gz"))).unwrap()
}

pub fn fields() -> Vec<Value> {
    lines(include_bytes!("../../../api/testdata/sweep.jsonl.gz"))
}

pub fn walks() -> Vec<Value> {
    lines(include_bytes!("../../../api/testdata/walks.jsonl.gz"))
}

pub fn expressions() -> Vec<Value> {
    lines(include_bytes!("../../../api/testdata/cel.jsonl.gz"))
}
