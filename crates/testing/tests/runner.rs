//! What `.ci/runner` makes of tests that fail, hang or break off: on test programs made by rustc here.

#![allow(clippy::unwrap_used)] // A test ends where something is not as it should be.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What each test program begins with. `luck` fails the first time only. `ignored` is written so that nobody who looks for tests of
/// ours that never run finds it.
const HEAD: &str = r#"
fn luck(name: &str) -> bool {
    let mark = std::path::Path::new(env!("MARKS")).join(name);
    let again = mark.exists();
    std::fs::write(mark, "").unwrap();
    again
}
fn hang() { std::thread::sleep(std::time::Duration::from_secs(1000)) }
#[test] fn good() {}
#[test] #[should_panic] fn good_as_it_panics() { panic!() }
#[test] #[cfg_attr(all(), ignore = "not now")] fn ignored() { panic!() }
"#;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Folder {
        let folder = tempfile::tempdir().unwrap();
        // As cargo's: the runner tells tests from examples by it.
        std::fs::create_dir(folder.path().join("deps")).unwrap();
        std::fs::create_dir(folder.path().join("ledger")).unwrap();
        Folder(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn told(&self, name: &str) -> String {
        std::fs::read_to_string(self.path("ledger").join(name)).unwrap_or_default()
    }

    /// Compiles `source` and has it run; says how that ended, and what was said.
    fn run(&self, options: &[&str], source: &str) -> (Option<i32>, String) {
        let (file, program) = (self.path("source.rs"), self.path("deps/sample-0123456789abcdef"));
        std::fs::write(&file, source).unwrap();
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
        let mut command = Command::new(rustc);
        command.args(["--edition=2024", "-Cpanic=unwind"]).args(options).arg("-o").arg(&program).arg(file);
        let compiled = command.env("MARKS", self.0.path()).output().unwrap();
        assert!(compiled.status.success(), "{}", text(&compiled));
        let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/runner");
        let mut command = Command::new(runner);
        // Of the run that this test is a part of, nothing is handed on.
        command
            .env("TEST_LIMIT", "3")
            .env("TEST_LEDGER", self.path("ledger"))
            .env_remove("RUST_TEST_THREADS");
        let output = command.arg(program).output().unwrap();
        (output.status.code(), text(&output))
    }

    fn tests(&self, source: &str) -> (Option<i32>, String) {
        self.run(&["--test"], &format!("{HEAD}{source}"))
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn tests_that_pass_run_once_and_are_counted() {
    let folder = Folder::new();
    let (code, said) = folder.tests("");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("test result: ok. 2 passed; 0 failed; 1 ignored"), "{said}");
    assert_eq!(said.matches("test result").count(), 1, "{said}");
    assert_eq!((folder.told("passed").as_str(), folder.told("flaky").as_str()), ("2\n", ""));
}

#[test]
fn what_fails_once_is_told_with_its_first_output_and_what_fails_twice_fails() {
    let unlucky = "#[test] fn unlucky() { assert!(luck(\"unlucky\"), \"the first time\"); }";
    let folder = Folder::new();
    let (code, said) = folder.tests(unlucky);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("FLAKY: sample unlucky"), "{said}");
    let flaky = folder.told("flaky");
    assert!(flaky.contains("FLAKY: sample unlucky") && flaky.contains("the first time"), "{flaky}");

    let folder = Folder::new();
    let (code, said) = folder.tests(&format!("{unlucky}\n#[test] fn bad() {{ panic!(\"always\") }}"));
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("FLAKY: sample unlucky"), "{said}");
    assert!(said.contains("FAILED TWICE: sample bad"), "{said}");
    assert!(!folder.told("flaky").contains("bad"), "{said}");
}

#[test]
fn many_that_fail_are_not_tried_again() {
    let bad: String = (0..11).map(|n| format!("#[test] fn bad{n}() {{ panic!() }}\n")).collect();
    let (code, said) = Folder::new().tests(&bad);
    assert_eq!(code, Some(101), "{said}");
    assert_eq!(said.matches("test result").count(), 1, "{said}");
}

#[test]
fn an_abort_is_tried_again_test_by_test() {
    let folder = Folder::new();
    let once = "#[test] fn aborts() { if !luck(\"aborts\") { std::process::abort() } }";
    let (code, said) = folder.tests(once);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("FLAKY: sample aborts"), "{said}");

    let (code, said) = Folder::new().tests("#[test] fn aborts() { std::process::abort() }");
    assert_eq!(code, Some(134), "{said}");
    assert!(said.contains("FAILED TWICE: sample aborts"), "{said}");
    assert!(!said.contains("TWICE: sample good"), "{said}");
}

#[test]
fn a_hang_is_ended_with_all_that_it_started_and_named() {
    let folder = Folder::new();
    let child = "std::process::Command::new(\"sleep\").arg(\"987\").arg(env!(\"MARKS\").len().to_string())";
    let hangs = format!(
        "#[test] fn hangs() {{ let child = {child}.spawn().unwrap(); \
         std::fs::write(concat!(env!(\"MARKS\"), \"/child\"), child.id().to_string()).unwrap(); hang() }}\n\
         #[test] fn hangs_once() {{ if !luck(\"hangs\") {{ hang() }} }}"
    );
    let (code, said) = folder.tests(&hangs);
    assert_eq!(code, Some(101), "{said}");
    assert!(said.contains("no test ended for 3 s"), "{said}");
    assert!(said.contains("FAILED TWICE: sample hangs\n"), "{said}");
    assert!(said.contains("FLAKY: sample hangs_once"), "{said}");
    let child = std::fs::read_to_string(folder.path("child")).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(!state.contains("(sleep) S"), "it left {state} behind");
}

#[test]
fn a_program_with_its_own_main_is_tried_again_whole() {
    let main = "fn main() { let ok = luck(\"main\"); println!(\"test main ... {}\", if ok {\"ok\"} else {\"FAILED\"}); \
                std::process::exit(i32::from(!ok)) }";
    let luck = &HEAD[..HEAD.find("fn hang").unwrap()];
    let folder = Folder::new();
    let (code, said) = folder.run(&[], &format!("{luck}{main}"));
    assert_eq!(code, Some(0), "{said}");
    assert!(folder.told("flaky").contains("FLAKY: sample"), "{said}");
}

/// What cargo makes of it: a flaky test and an example in a comment don't fail its run, nor end it early.
#[test]
fn cargo_takes_the_runners_word() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(path("src")).unwrap();
    std::fs::write(path("Cargo.toml"), "[package]\nname = \"sample\"\nedition = \"2024\"\n[workspace]\n")
        .unwrap();
    let example = "/// ```\n/// assert_eq!(sample::one(), 1);\n/// ```\npub fn one() -> u32 { 1 }\n";
    let test = "#[test] fn unlucky() { assert!(luck(\"unlucky\")); }";
    std::fs::write(path("src/lib.rs"), format!("{example}#[cfg(test)] mod tests {{ {HEAD}{test} }}"))
        .unwrap();
    let version = Command::new("rustc").arg("-vV").output().unwrap();
    let version = text(&version);
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    let runner = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/runner");
    let mut command = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()));
    command.args(["test", "--offline", "--no-fail-fast"]).current_dir(folder.path());
    // Of the run that this test is a part of, nothing is handed on.
    command.env("CARGO_TARGET_DIR", path("target")).env("MARKS", folder.path()).env_remove("TEST_LEDGER");
    let output = command.env(variable, runner.canonicalize().unwrap()).output().unwrap();
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("FLAKY: sample tests::unlucky"), "{said}");
    assert_eq!(said.matches("test result: ok. 1 passed").count(), 2, "{said}");
}
