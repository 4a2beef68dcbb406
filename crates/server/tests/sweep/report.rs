//! What differs, for people: kinds of differences, the most frequent first.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::Value;

/// The most kinds of differences that a failure lists.
const MOST: usize = 60;

/// One answer that differs: its kind, and all about it.
pub struct Difference {
    pub kind: String,
    pub all: Value,
}

/// Keeps what differs where somebody asks for it, and says its kinds where fewer than `floor` are alike.
pub fn hold(name: &str, counts: &[(&str, usize, usize)], total: usize, differences: &[Difference]) {
    let mut said = String::new();
    for (what, alike, floor) in counts {
        writeln!(said, "{name}: {alike} of {total} {what} alike, floor {floor}").unwrap();
    }
    print!("{said}");
    if let Ok(folder) = std::env::var("HOLDFAST_DIFFERENCES") {
        let lines: Vec<String> = differences.iter().map(|d| d.all.to_string()).collect();
        std::fs::write(format!("{folder}/{name}.jsonl"), lines.join("\n")).unwrap();
    }
    if counts.iter().all(|(_, alike, floor)| alike >= floor) {
        return;
    }
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    differences.iter().for_each(|d| *kinds.entry(&d.kind).or_default() += 1);
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    for (kind, times) in kinds.iter().take(MOST) {
        writeln!(said, "{times:6}  {kind}").unwrap();
    }
    panic!("{said}({} kinds in all)", kinds.len());
}

/// A text that is not much longer than others.
pub fn short(value: &Value) -> String {
    value.to_string().chars().take(120).collect()
}
