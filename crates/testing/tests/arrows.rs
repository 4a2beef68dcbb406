//! Rooms use each other as `ARCHITECTURE.md` draws it, and nothing else.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Any room may start tasks, and count.
const FREE: [&str; 2] = ["tasks", "figures"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What each room may use, as the drawing of the house says; nothing for one that may use all.
fn drawn() -> BTreeMap<String, Option<BTreeSet<String>>> {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let house = page.split("```").nth(1).expect("the page draws the house");
    let mut rooms: Vec<(String, String)> = Vec::new();
    for line in house.lines() {
        let indent = line.len() - line.trim_start().len();
        match line.trim_start().split_once('/') {
            Some((name, says)) if indent <= 2 => rooms.push((name.to_owned(), says.to_owned())),
            _ => rooms.last_mut().into_iter().for_each(|(_, says)| *says = format!("{says} {}", line.trim())),
        }
    }
    let arrows = rooms.into_iter().filter(|(room, _)| folder(room).is_some()).map(|(room, says)| {
        let (_, targets) = says.rsplit_once("->").unwrap_or_else(|| panic!("{room} has no arrow"));
        let targets: BTreeSet<String> = targets.split(',').map(|target| target.trim().to_owned()).collect();
        let of = match targets.first().map(String::as_str) {
            Some("all") => None,
            Some("(nothing of ours)") => Some(BTreeSet::new()),
            _ => Some(targets),
        };
        (room, of)
    });
    arrows.collect()
}

/// The folder of a crate; nothing if there is no crate of that name.
fn folder(room: &str) -> Option<PathBuf> {
    let places = [root().join("crates").join(room), root().join(room)];
    places.into_iter().find(|place| place.join("Cargo.toml").is_file())
}

/// The rooms that a crate uses outside its tests, by its `Cargo.toml`.
fn used(folder: &Path, rooms: &BTreeSet<String>) -> BTreeSet<String> {
    let text = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    let of_build = text.split("\n[").filter(|section| section.starts_with("dependencies]"));
    let names = of_build.flat_map(|section| section.lines().skip(1)).map(|line| {
        let end = line.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '-')).unwrap_or(line.len());
        line[..end].to_owned()
    });
    names.filter(|name| rooms.contains(name) && !FREE.contains(&name.as_str())).collect()
}

#[test]
fn the_house_is_as_it_is_drawn() {
    let drawn = drawn();
    let rooms: BTreeSet<String> = drawn.keys().cloned().collect();
    for entry in fs::read_dir(root().join("crates")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(rooms.contains(&name), "{name} is missing in the drawing");
    }
    for (room, of) in &drawn {
        let used = used(&folder(room).expect("a crate"), &rooms);
        if let Some(of) = of {
            assert_eq!(&used, of, "{room}: what Cargo.toml has, and what ARCHITECTURE.md draws");
        }
    }
    assert!(drawn["server"].as_ref().is_some_and(|of| of.contains("machinery")));
}
