//! What inputs are made of: the bodies, paths and headers of recorded requests, and inputs that once failed.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// What inputs are made of.
#[derive(Debug, Clone, Default)]
pub struct Corpus {
    /// JSON values: bodies of requests, and of answers.
    pub values: Vec<Value>,
    /// Whole requests: method, path, headers, body.
    pub requests: Vec<Value>,
    /// Inputs that failed once, by target.
    pub kept: Vec<(String, Vec<u8>)>,
}

impl Corpus {
    /// The repository's corpus.
    ///
    /// # Errors
    /// If a file can't be read.
    pub fn load() -> anyhow::Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut corpus = Corpus::default();
        let recorded = fs::read_to_string(root.join("../crates/api/testdata/recorded.jsonl"))?;
        for line in recorded.lines() {
            let case: Value = serde_json::from_str(line)?;
            for step in case["steps"].as_array().into_iter().flatten() {
                for value in [&step["body"], &step["answer"]["body"]] {
                    let is_small = value.is_object() && value.to_string().len() < 20_000;
                    corpus.values.extend(is_small.then(|| value.clone()));
                }
                if step["method"].is_string() {
                    let mut request = step.clone();
                    request.as_object_mut().map(|request| request.remove("answer"));
                    corpus.requests.push(request);
                }
            }
        }
        for folder in fs::read_dir(root.join("corpus")).into_iter().flatten() {
            let folder = folder?;
            for file in fs::read_dir(folder.path())? {
                let input = fs::read(file?.path())?;
                corpus.kept.push((folder.file_name().to_string_lossy().into_owned(), input));
            }
        }
        Ok(corpus)
    }
}
