//! What the fields of built-in kinds mean, as the program tells it, is what the crate `k8s-openapi` says: it is made of the
//! descriptions that Kubernetes publishes. The program has them compressed, without the crate's thousand files.
//!
//! Where they differ, as with a new version of the crate, the test writes the new ones and says where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use regex::Regex;
use serde_json::Value;

const OURS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/descriptions.gz");
/// Those of the kinds, and those of all that kinds have in common.
const SCHEMAS: [&str; 2] =
    [include_str!("../schemas/schemas.json"), include_str!("../../machinery/schemas/schemas.json")];
/// A text of Rust.
const TEXT: &str = r#""((?:[^"\\]|\\.)*)""#;

/// By field; that of the whole under an empty name.
type Described = BTreeMap<String, String>;

/// The folder of the sources of the crate, for the version of Kubernetes that is served.
fn sources() -> PathBuf {
    let rustc = Command::new("rustc").arg("-vV").output().unwrap();
    let rustc = String::from_utf8(rustc.stdout).unwrap();
    let host = rustc.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        // A build has fetched what this machine needs, and nothing that only others do.
        .args(["--filter-platform", host, "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == "k8s-openapi").unwrap();
    Path::new(package["manifest_path"].as_str().unwrap()).with_file_name("src").join("v1_36")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn unquoted(text: &str) -> String {
    serde_json::from_str(&format!("\"{}\"", text.replace("\\'", "'"))).unwrap()
}

/// Reads the sources of the crate.
struct Reader {
    name: Regex,
    whole: Regex,
    field: Regex,
    description: Regex,
    key: Regex,
}

impl Reader {
    fn new() -> Self {
        let regex = |pattern: &str| Regex::new(pattern).unwrap();
        Reader {
            name: regex("(?m)^// Generated from definition (.*)$"),
            whole: regex(&format!(r#"json_schema!\(\{{\s*"description": {TEXT}"#)),
            field: regex(&format!(r"(?s)\n {{16}}{TEXT}: \(?\{{(.*?)\n {{16}}\}}")),
            description: regex(&format!(r#""description"(?:\.into\(\))?[:,] {TEXT}"#)),
            key: regex(&format!(r"{TEXT} => Field::Key_(\w+),")),
        }
    }

    /// The name of the schema in a file, and its descriptions.
    fn read(&self, source: &str) -> Option<(String, Described)> {
        let name = self.name.captures(source)?[1].trim().to_owned();
        let mut described = self.comments(source);
        let schema = source.find("crate::schemars::JsonSchema for").map_or("", |at| &source[at..]);
        if let Some(whole) = self.whole.captures(schema) {
            described.insert(String::new(), unquoted(&whole[1]));
        }
        for field in self.field.captures_iter(schema) {
            if let Some(description) = self.description.captures(&field[2]) {
                described.insert(unquoted(&field[1]), unquoted(&description[1]));
            }
        }
        Some((name, described))
    }

    /// What stands as comments before the type and its fields: some types write their schema in another way.
    fn comments(&self, source: &str) -> Described {
        let keys: BTreeMap<&str, String> = self
            .key
            .captures_iter(source)
            .map(|found| (found.get(2).unwrap().as_str(), unquoted(&found[1])))
            .collect();
        let (mut described, mut comment) = (Described::new(), Vec::new());
        for line in source.lines() {
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                comment.push(text.strip_prefix(' ').unwrap_or(text));
                continue;
            }
            if line.starts_with("#[") {
                continue;
            }
            let field = line.strip_prefix("pub ").and_then(|rest| rest.split_once(':')).map(|(name, _)| name);
            let place = match field {
                Some(field) => keys.get(field.trim_start_matches("r#")).cloned(),
                None => ["pub struct ", "pub enum "].iter().any(|of| line.starts_with(of)).then(String::new),
            };
            let text = std::mem::take(&mut comment).join("\n");
            if let Some(place) = place.filter(|_| !text.is_empty()) {
                described.insert(place, text);
            }
            if line.starts_with("impl ") {
                break;
            }
        }
        described
    }
}

fn schemas() -> BTreeMap<String, Value> {
    SCHEMAS.iter().flat_map(|text| serde_json::from_str::<BTreeMap<String, Value>>(text).unwrap()).collect()
}

/// The descriptions of every published schema, a line each: its name, a tab, and an object.
fn described() -> String {
    let (reader, mut paths) = (Reader::new(), Vec::new());
    files(&sources(), &mut paths);
    let all: BTreeMap<String, Described> =
        paths.iter().filter_map(|path| reader.read(&std::fs::read_to_string(path).unwrap())).collect();
    let of_any = &all["io.k8s.api.core.v1.Pod"];
    let mut out = String::new();
    for (name, schema) in &schemas() {
        let mut described = all.get(name).cloned().unwrap_or_default();
        let kind = name.rsplit('.').next().unwrap();
        if let Some(item) = kind.strip_suffix("List")
            && schema["properties"]["items"].is_object()
            && described.is_empty()
        {
            // The crate has one type for all lists.
            let of_list = &all["io.k8s.List"];
            described.extend([(String::new(), format!("{kind} is a list of {item}"))]);
            described.extend(["items", "metadata"].map(|field| (field.to_owned(), of_list[field].clone())));
        }
        for field in ["apiVersion", "kind"] {
            if schema["x-kubernetes-group-version-kind"].is_array() {
                described.entry(field.to_owned()).or_insert_with(|| of_any[field].clone());
            }
        }
        described.retain(|field, _| field.is_empty() || schema["properties"][field].is_object());
        if !described.is_empty() {
            out.push_str(&format!("{name}\t{}\n", serde_json::to_string(&described).unwrap()));
        }
    }
    out
}

#[test]
fn fields_are_described_as_kubernetes_does() {
    let theirs = described();
    let (mut ours, mut compressed) = (String::new(), Vec::new());
    if let Ok(file) = std::fs::File::open(OURS) {
        GzDecoder::new(file).read_to_string(&mut ours).unwrap();
    }
    if ours != theirs {
        let mut encoder = GzEncoder::new(&mut compressed, Compression::best());
        encoder.write_all(theirs.as_bytes()).unwrap();
        encoder.finish().unwrap();
        let new = Path::new(env!("CARGO_TARGET_TMPDIR")).join("descriptions.gz");
        std::fs::write(&new, compressed).unwrap();
        panic!(
            "k8s-openapi describes fields otherwise: look at {} and put it in place of {OURS}",
            new.display()
        );
    }
    let schemas = schemas();
    let fields = |schema: &Value| schema["properties"].as_object().map_or(0, serde_json::Map::len);
    let all: usize = schemas.values().map(|schema| 1 + fields(schema)).sum();
    let told: usize = ours
        .lines()
        .map(|line| serde_json::from_str::<Described>(line.split_once('\t').unwrap().1).unwrap().len())
        .sum();
    // What is left has no description in Kubernetes either.
    assert!(told * 100 > all * 97, "{told} of {all}");
}
