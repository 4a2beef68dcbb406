//! A store that several processes use, and that one of them leaves in the middle.

use std::collections::BTreeSet;
use std::fs;

use images::{Error, Store};

use crate::made::{archive, layer, made};

fn import(store: &Store, name: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("archive");
    let base = layer(&[("bin/sh", b"shell")]);
    let image = made(&[base, layer(&[("name", name.as_bytes())])]);
    fs::write(&path, archive(&image.saved(&[name]))).unwrap();
    store.import(&path, None).unwrap();
}

#[test]
fn each_sees_what_the_other_does() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
    import(&one, "a");
    import(&other, "b");
    assert_eq!(one.list().unwrap(), other.list().unwrap());
    assert!(one.find("b").unwrap().is_some() && other.find("a").unwrap().is_some());
    one.remove("b", &|| Ok(BTreeSet::new())).unwrap();
    assert!(other.find("b").unwrap().is_none());
    assert!(other.find("a").unwrap().unwrap().layers.iter().all(|layer| layer.is_dir()));
}

#[test]
fn many_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let names: Vec<String> = (0..8).map(|n| format!("image-{n}")).collect();
    std::thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| import(&Store::open(dir.path()).unwrap(), name));
        }
    });
    let store = Store::open(dir.path()).unwrap();
    for name in &names {
        let image = store.find(name).unwrap().unwrap();
        assert_eq!(fs::read_to_string(image.layers[1].join("name")).unwrap(), *name);
    }
    let layers = fs::read_dir(dir.path().join("layers/sha256")).unwrap().count();
    assert_eq!(layers, names.len() + 1, "the common layer is there once");
}

#[test]
fn what_a_process_left_in_the_middle_goes_when_the_store_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    import(&store, "a");
    import(&store, "b");
    let lost = store.find("b").unwrap().unwrap();
    drop(store);
    // A layer half unpacked, one that has its place and no line in the index, and one with a line and no place.
    let half = dir.path().join("temporary/1-0/3/root");
    let unlisted = dir.path().join("layers/sha256").join("0".repeat(64));
    let blob = dir.path().join("blobs/sha256").join("0".repeat(64));
    for folder in [&half, &unlisted.join("root")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(&blob, "{").unwrap();
    fs::write(dir.path().join("temporary/1-0/4"), "index.json, half").unwrap();
    fs::remove_dir_all(lost.layers[1].parent().unwrap()).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(!half.exists() && !unlisted.exists() && !blob.exists());
    assert_eq!(store.find("b").unwrap(), None, "it is pulled again");
    assert!(store.find("a").unwrap().is_some());
    import(&store, "b");
    assert!(store.find("b").unwrap().unwrap().layers[1].join("name").is_file());
}

#[test]
fn an_index_that_is_not_known_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    import(&Store::open(dir.path()).unwrap(), "a");
    let index = dir.path().join("index.json");
    let text = fs::read_to_string(&index).unwrap();
    for (bent, why) in
        [(text.replace("\"format\":1", "\"format\":2"), "form 2"), (text[..50].to_owned(), "EOF")]
    {
        fs::write(&index, &bent).unwrap();
        let Err(error) = Store::open(dir.path()) else { panic!("{bent} was taken") };
        assert!(matches!(error, Error::Store { .. }) && error.to_string().contains(why), "{error}");
    }
    assert_eq!(fs::read_dir(dir.path().join("layers/sha256")).unwrap().count(), 2);
    fs::write(&index, text).unwrap();
    assert!(Store::open(dir.path()).unwrap().find("a").unwrap().is_some());
}
