//! Every task and every thread of the house is started here, and so has a span.

#![allow(clippy::unwrap_used)] // A test's functions may fail the test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

/// What starts a task or a thread without a span. `Command::spawn` takes no argument, and starts neither.
const WITHOUT: &str = r"tokio::spawn\(|task::spawn|\.spawn\([^)]|\.spawn\($|spawn_blocking\(|\.spawn_on\(|\.spawn_local\(|thread::spawn|thread::Builder";

fn sources(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.insert(path);
        }
    }
}

/// What a program consists of: its tests start tasks as they like.
fn without_tests(mut files: BTreeSet<PathBuf>) -> Vec<(PathBuf, String)> {
    let of_tests = Regex::new(r"#\[cfg\(test\)\]\s+(?:pub(?:\(crate\))? )?mod (\w+)(;?)").unwrap();
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    let mut left_out = Vec::new();
    for path in std::mem::take(&mut files) {
        let mut text = fs::read_to_string(&path).unwrap();
        let stem = path.file_stem().unwrap();
        let beside = ["lib", "main", "mod"].iter().any(|name| *name == stem);
        let folder = if beside { path.parent().unwrap().to_owned() } else { path.with_extension("") };
        let mut end = text.len();
        for found in of_tests.captures_iter(&text) {
            let module = folder.join(&found[1]);
            left_out.extend([module.with_extension("rs"), module]);
            if found[2].is_empty() {
                // It stands at the end of its file, as everywhere in the house.
                end = end.min(found.get(0).unwrap().start());
            }
        }
        text.truncate(end);
        texts.push((path, text));
    }
    texts.retain(|(path, _)| !left_out.iter().any(|module| path.starts_with(module)));
    texts
}

#[test]
fn no_task_and_no_thread_is_without_a_span() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = BTreeSet::new();
    for room in fs::read_dir(crates).unwrap() {
        let room = room.unwrap().path();
        if !["tasks", "testing"].iter().any(|name| room.ends_with(name)) && room.join("src").is_dir() {
            sources(&room.join("src"), &mut files);
        }
    }
    let texts = without_tests(files);
    assert!(texts.len() > 300, "the sources are where they are looked for");
    let without = Regex::new(WITHOUT).unwrap();
    let mut found = Vec::new();
    for (path, text) in &texts {
        for (number, line) in text.lines().enumerate() {
            if without.is_match(line) && !line.trim_start().starts_with("//") {
                let path = path.strip_prefix(crates).unwrap();
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "start these by `tasks`, with a span:\n{}", found.join("\n"));
}

#[test]
fn what_starts_tasks_without_a_span_is_seen() {
    let without = Regex::new(WITHOUT).unwrap();
    for line in [
        "tokio::spawn(work());",
        "tokio::task::spawn(work());",
        "set.spawn(work());",
        "    .spawn(",
        "handle.spawn(async move {",
        "set.spawn_on(work(), &handle);",
        "tokio::task::spawn_blocking(work)",
        "std::thread::spawn(work)",
        "thread::Builder::new()",
    ] {
        assert!(without.is_match(line), "{line}");
    }
    for line in [
        "tasks::spawn(span, work());",
        "set.spawn_in(span, work());",
        "command.spawn()?;",
        "tasks::spawn_on(&h, span, work());",
    ] {
        assert!(!without.is_match(line), "{line}");
    }
}
