//! The modules of the server stand on each other in one order; no arrow runs back up.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The lowest first: each may use those before it.
const ORDER: [&str; 15] = [
    "clock",
    "http",
    "backend",
    "webhook",
    "catalog",
    "conversion",
    "admission",
    "registry",
    "bootstrap",
    "definitions",
    "proxy",
    "aggregation",
    "usage",
    "requests",
    "server",
];

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// The top-level modules that a source names, wherever in it; each import names its module alone.
fn named(source: &str) -> BTreeSet<&str> {
    let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    let paths = code.flat_map(|line| line.split("crate::").skip(1));
    paths.map(|path| path.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()).collect()
}

#[test]
fn every_module_uses_those_below_it_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let place = |module: &str| ORDER.iter().position(|known| *known == module);
    let mut all = Vec::new();
    files(&root, &mut all);
    let (mut seen, mut arrows) = (BTreeSet::new(), 0);
    for path in all.iter().filter(|path| path.extension().is_some_and(|end| end == "rs")) {
        let within = path.strip_prefix(&root).unwrap();
        let module = within.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let own = place(module).unwrap_or_else(|| panic!("{module} has no place in the order"));
        seen.insert(module.to_owned());
        for other in named(&fs::read_to_string(path).unwrap()) {
            let other = place(other).unwrap_or_else(|| panic!("{within:?} names crate::{other}"));
            assert!(other <= own, "{within:?} uses {}, which stands above {module}", ORDER[other]);
            arrows += usize::from(other < own);
        }
    }
    assert_eq!(seen.len(), ORDER.len(), "{seen:?}");
    assert!(arrows > 80, "the sources were read: {arrows}");
}
