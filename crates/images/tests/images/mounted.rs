//! What takes mounts: layers stacked by overlayfs itself, and a disk that is full. Each test starts itself again in a mount namespace.

use std::fs;
use std::path::Path;
use std::process::Command;

use images::{Overlay, Store};

use crate::made::{archive, layer, made};

const INSIDE: &str = "IMAGES_TEST_INSIDE";

/// Runs a test's own part where it may mount; nothing is left to do outside.
fn inside(test: &str, work: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return work();
    }
    let Some(unshare) = [&["-m"][..], &["-r", "-m"]].into_iter().find(|arguments| {
        Command::new("unshare").args(*arguments).arg("true").output().is_ok_and(|out| out.status.success())
    }) else {
        return testing::skip("mounts", "this machine gives no mount namespaces");
    };
    let me = std::env::current_exe().unwrap();
    let mut again = Command::new("unshare");
    again.args(unshare).arg(me).args(["--exact", test, "--nocapture"]).env(INSIDE, "1");
    let out = again.output().unwrap();
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

fn mount(arguments: &[&str], at: &Path) {
    let out = Command::new("mount").args(arguments).arg(at).output().unwrap();
    assert!(out.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn overlayfs_shows_what_the_layers_mean() {
    inside("mounted::overlayfs_shows_what_the_layers_mean", || {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        let lower = layer(&[
            ("etc/keep", b"1"),
            ("etc/gone", b"1"),
            ("hidden/file", b"1"),
            ("again/old", b"1"),
            ("changed", b"1"),
        ]);
        let upper = layer(&[
            ("etc/.wh.gone", b""),
            ("etc/new", b"2"),
            ("hidden/.wh..wh..opq", b""),
            ("hidden/other", b"2"),
            (".wh.again", b""),
            ("again/new", b"2"),
            ("changed", b"2"),
        ]);
        let path = dir.path().join("archive");
        fs::write(&path, archive(&made(&[lower, upper]).saved(&["a"]))).unwrap();
        let image = store.import(&path, None).unwrap().remove(0);
        let whole = dir.path().join("whole");
        fs::create_dir(&whole).unwrap();
        let layers: Vec<_> = image.layers.iter().rev().map(|layer| layer.to_str().unwrap()).collect();
        let options = match store.overlay() {
            Overlay::Trusted => format!("lowerdir={}", layers.join(":")),
            Overlay::User => format!("userxattr,lowerdir={}", layers.join(":")),
        };
        mount(&["-t", "overlay", "none", "-o", &options], &whole);
        let listed = |folder: &str| {
            let names = fs::read_dir(whole.join(folder)).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(listed(""), "again changed etc hidden");
        assert_eq!(
            (listed("etc"), listed("hidden"), listed("again")),
            ("keep new".into(), "other".into(), "new".into())
        );
        assert_eq!(fs::read_to_string(whole.join("changed")).unwrap(), "2");
    });
}

#[test]
fn a_full_disk_is_said_and_nothing_is_left_on_it() {
    inside("mounted::a_full_disk_is_said_and_nothing_is_left_on_it", || {
        let dir = tempfile::tempdir().unwrap();
        let disk = dir.path().join("disk");
        fs::create_dir(&disk).unwrap();
        mount(&["-t", "tmpfs", "-o", "size=4m", "none"], &disk);
        let store = Store::open(disk.join("store")).unwrap();
        let import = |size: usize| {
            let path = dir.path().join("archive");
            let content = vec![7; size];
            fs::write(&path, archive(&made(&[layer(&[("file", &content)])]).saved(&["a"]))).unwrap();
            store.import(&path, None)
        };
        let error = import(6 << 20).unwrap_err();
        assert!(error.to_string().contains("No space left on device"), "{error}");
        assert_eq!(error.reason().as_str(), "ErrImagePull");
        let left = |folder: &str| fs::read_dir(store.folder().join(folder)).unwrap().count();
        assert_eq!((left("layers/sha256"), left("blobs/sha256")), (0, 0));
        // There is room again, for one that fits.
        import(3 << 20).unwrap();
        assert!(store.find("a").unwrap().is_some());
    });
}
