//! Each test that `docs/threat-model.md` names for what it says is there, where the page says that it is.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::fs;
use std::path::Path;

/// What a line of a table names in its last cell: files of tests, each with the functions behind it.
fn named(line: &str) -> Vec<(&str, Vec<&str>)> {
    let mut named: Vec<(&str, Vec<&str>)> = Vec::new();
    let cell = line.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap_or_default();
    for word in cell.split('`').skip(1).step_by(2) {
        if is_file(word) {
            named.push((word, Vec::new()));
        } else {
            let (_, functions) =
                named.last_mut().unwrap_or_else(|| panic!("{word} has no file before it: {line}"));
            functions.push(word);
        }
    }
    named
}

fn is_file(word: &str) -> bool {
    Path::new(word).extension().is_some_and(|extension| extension == "rs")
}

/// The lines of tables that say what stops somebody: all but their heads.
fn claims(page: &str) -> Vec<&str> {
    page.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| shown by |")).collect()
}

#[test]
fn each_test_that_the_threat_model_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let claims = claims(&page);
    assert!(claims.len() > 40, "{} claims are found", claims.len());
    for claim in claims {
        let named = named(claim);
        assert!(!named.is_empty(), "no test shows this: {claim}");
        for (file, functions) in named {
            let text = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            assert!(!functions.is_empty(), "{file} is named without a test: {claim}");
            for function in functions {
                assert!(text.contains(&format!("fn {function}(")), "{file} has no test {function}");
            }
        }
    }
}

#[test]
fn a_claim_names_files_and_their_functions() {
    let line = "| It `holds` | `a/b.rs`: `one`, `two`; `c.rs`: `three` |";
    assert_eq!(named(line), [("a/b.rs", vec!["one", "two"]), ("c.rs", vec!["three"])]);
    let page = "| what stops it | shown by |\n|---|---|\n| It `holds` | `a.rs`: `one` |\nno `claim`";
    assert_eq!(claims(page), ["| It `holds` | `a.rs`: `one` |"]);
}
