//! The Debian package: made of the assets that `cargo deb` takes, installed into a folder, and started from there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use local::{Folder, NetKind};

use crate::harness::{HOLDFAST, lock_loopback, text};
use crate::service::Service;

const PACKAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/");
const UNIT: &str = "usr/lib/systemd/system/holdfast.service";

fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

/// The assets of the package's `[package.metadata.deb]`: what, where to, with which mode.
fn assets() -> Vec<[String; 3]> {
    let manifest = fs::read_to_string(format!("{PACKAGE}Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != "assets = [").skip(1);
    let lines = lines.take_while(|line| *line != "]").map(|line| line.trim().trim_end_matches(','));
    // A list of texts is the same in TOML and in JSON.
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The files that an asset's pattern means: at most one `*`, in the file's name.
fn files(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().unwrap().to_str().unwrap();
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let all = fs::read_dir(pattern.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let matches = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(before) && name.ends_with(after)
    };
    all.filter(matches).collect()
}

/// Puts the assets into `tree`. What is made for the package lies in `made`.
fn lay_out(tree: &Path, made: &Path) {
    let assets = assets();
    assert!(assets.len() > 5, "{assets:?}");
    for [source, target, mode] in &assets {
        let pattern = match (source.as_str(), source.strip_prefix("../../target/deb/")) {
            ("target/release/holdfast", _) => PathBuf::from(HOLDFAST),
            (_, Some(generated)) => made.join(generated),
            (own, None) => Path::new(PACKAGE).join(own),
        };
        let files = files(&pattern);
        assert!(!files.is_empty(), "{source} is nothing");
        for file in files {
            let mut to = tree.join(target);
            if target.ends_with('/') {
                to.push(file.file_name().unwrap());
            }
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(&file, &to).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
            let mode = u32::from_str_radix(mode, 8).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    // The unit isn't listed: `systemd-units` brings it.
    let unit = tree.join(UNIT);
    fs::create_dir_all(unit.parent().unwrap()).unwrap();
    fs::copy(format!("{PACKAGE}systemd/holdfast.service"), unit).unwrap();
}

#[test]
fn what_the_package_installs_runs() {
    if !testing::has("dpkg-deb") || !testing::has("dpkg") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [tree, made, root] = ["tree", "made", "root"].map(|name| dir.path().join(name));
    succeeds(Command::new(format!("{PACKAGE}deb/prepare")).arg(HOLDFAST).arg(&made));
    lay_out(&tree, &made);
    let architecture = succeeds(Command::new("dpkg").arg("--print-architecture"));
    let control = format!(
        "Package: holdfast\nVersion: {}\nArchitecture: {}\nMaintainer: a test\nDescription: a test's\n",
        env!("CARGO_PKG_VERSION"),
        String::from_utf8(architecture.stdout).unwrap().trim()
    );
    fs::create_dir(tree.join("DEBIAN")).unwrap();
    fs::set_permissions(tree.join("DEBIAN"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(tree.join("DEBIAN/control"), control).unwrap();
    let package = dir.path().join("holdfast.deb");
    // Debug builds are large, and compressing them takes a minute.
    succeeds(Command::new("dpkg-deb").args(["-Znone", "--build"]).arg(&tree).arg(&package));

    for folder in ["info", "updates"] {
        fs::create_dir_all(root.join("var/lib/dpkg").join(folder)).unwrap();
    }
    fs::write(root.join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = || {
        let mut dpkg = Command::new("dpkg");
        dpkg.args(["--force-not-root", "--force-bad-path"]);
        dpkg.arg(format!("--root={}", root.display()));
        dpkg
    };
    succeeds(dpkg().arg("--install").arg(&package));
    for file in [
        "usr/share/man/man1/holdfast.1",
        "usr/share/man/man1/holdfast-init.1",
        "usr/share/bash-completion/completions/holdfast",
        "usr/share/doc/holdfast/docs/install.md",
        "usr/share/doc/holdfast/examples/settings.yaml",
    ] {
        assert!(root.join(file).exists(), "{file}");
    }

    // As the unit says, but for the root and the configuration.
    let unit = fs::read_to_string(root.join(UNIT)).unwrap();
    let started = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).unwrap();
    let (program, words) = started.split_once(' ').unwrap();
    assert_eq!(words, "host --config /etc/holdfast/config.yaml");
    let _loopback = lock_loopback();
    let folder = Folder::open_or_create(&dir.path().join("cluster"), 1, NetKind::Loopback).unwrap();
    let service = Service::start(&root.join(program), dir.path(), &folder.config_file("n1"));
    service.waits_for("READY=1");
    service.signal(libc::SIGTERM);
    service.waits_for("STOPPING=1");
    assert!(service.ends().success());

    succeeds(dpkg().args(["--purge", "holdfast"]));
    assert!(!root.join(program).exists() && !root.join(UNIT).exists(), "nothing is left");
}
