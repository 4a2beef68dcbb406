use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use images::{Digest, Error, Image, Limits, Options, Platform, Reference, Store};
use serde_json::{Value, json};

use crate::made::{Files, Made, archive, gzip, layer, made, plain, write, zstd};

struct Ground {
    dir: tempfile::TempDir,
    store: Store,
}

impl Ground {
    fn new() -> Self {
        Ground::with(Options::default())
    }

    fn with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join("store"), options).unwrap();
        Ground { dir, store }
    }

    fn import_bytes(&self, bytes: &[u8], name: Option<&str>) -> Result<Vec<Arc<Image>>, Error> {
        let path = self.dir.path().join("archive");
        fs::write(&path, bytes).unwrap();
        self.store.import(&path, name.map(|name| Reference::parse(name).unwrap()).as_ref())
    }

    fn import(&self, files: &Files) -> Result<Vec<Arc<Image>>, Error> {
        self.import_bytes(&archive(files), None)
    }

    /// Everything in the store's folder that isn't a folder of its own.
    fn leftovers(&self) -> Vec<String> {
        let mut all = Vec::new();
        for folder in ["blobs/sha256", "layers/sha256", "temporary"] {
            for entry in fs::read_dir(self.store.folder().join(folder)).unwrap() {
                let path = entry.unwrap().path();
                let inside = || {
                    fs::read_dir(&path)
                        .unwrap()
                        .filter(|entry| entry.as_ref().unwrap().file_name() != "alive")
                };
                if folder != "temporary" || inside().count() > 0 {
                    all.push(path.display().to_string());
                }
            }
        }
        all
    }
}

fn one(text: &[u8]) -> Made {
    made(&[layer(&[("etc/name", text)])])
}

fn read(image: &Image, path: &str) -> String {
    let found = image.layers.iter().rev().map(|layer| layer.join(path)).find(|path| path.exists());
    fs::read_to_string(found.unwrap()).unwrap()
}

#[test]
fn what_docker_saved_is_found_by_name_digest_and_id() {
    let ground = Ground::new();
    let image = made(&[layer(&[("bin/sh", b"shell")]), layer(&[("etc/name", b"one")])]);
    let found = ground.import(&image.saved(&["busybox:1.36", "localhost:5000/box:v1"])).unwrap();
    let [found] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((read(found, "bin/sh"), read(found, "etc/name")), ("shell".into(), "one".into()));
    assert_eq!(found.config.cmd, ["/bin/sh"]);
    assert_eq!((found.config.user.as_str(), found.config.env[0].as_str()), ("7", "A=b"));
    assert_eq!((found.size, found.id.clone()), (8, Digest::sha256(&image.configuration())));
    let by_digest = format!("docker.io/library/busybox@{}", found.digest);
    for name in [
        "busybox:1.36",
        "docker.io/library/busybox:1.36",
        "localhost:5000/box:v1",
        &by_digest,
        found.digest.as_str(),
        found.id.as_str(),
        found.id.hex(),
    ] {
        assert_eq!(ground.store.find(name).unwrap().as_ref(), Some(found), "{name}");
    }
    let reference = Reference::parse("localhost:5000/box:v1").unwrap();
    assert_eq!(found.image_id(&reference), format!("localhost:5000/box@{}", found.digest));
    for name in ["busybox", "busybox:1.35", &"0".repeat(64)] {
        assert_eq!(ground.store.find(name).unwrap(), None, "{name}");
    }
    assert!(matches!(ground.store.find("Busybox"), Err(Error::InvalidName { .. })));
    // All of it is there for the next process too.
    let again = Store::open(ground.store.folder()).unwrap();
    assert_eq!(again.list().unwrap(), ground.store.list().unwrap());
}

#[test]
fn layouts_come_as_folders_and_archives_however_compressed() {
    let image = one(b"one");
    for compress in [plain, gzip, zstd] {
        let files = image.layout("quay.io/a/b:v1", compress);
        for outer in [None, Some(plain as fn(&[u8]) -> Vec<u8>), Some(gzip), Some(zstd)] {
            let ground = Ground::new();
            match outer {
                None => {
                    let folder = ground.dir.path().join("layout");
                    write(&files, &folder);
                    ground.store.import(&folder, None).unwrap();
                }
                Some(outer) => drop(ground.import_bytes(&outer(&archive(&files)), None).unwrap()),
            }
            let found = ground.store.find("quay.io/a/b:v1").unwrap().unwrap();
            assert_eq!(read(&found, "etc/name"), "one");
            assert_eq!(
                ground.leftovers().len(),
                3,
                "manifest, configuration and layer: {:?}",
                ground.leftovers()
            );
        }
    }
}

#[test]
fn a_layer_of_several_images_is_there_once_and_goes_with_the_last() {
    let ground = Ground::new();
    let base = layer(&[("bin/sh", b"shell")]);
    for (name, text) in [("a", "one"), ("b", "two")] {
        let image = made(&[base.clone(), layer(&[("etc/name", text.as_bytes())])]);
        ground.import(&image.layout(&format!("quay.io/{name}:v1"), gzip)).unwrap();
    }
    let find = |name: &str| ground.store.find(name).unwrap();
    let (a, b) = (find("quay.io/a:v1").unwrap(), find("quay.io/b:v1").unwrap());
    assert_eq!(a.layers[0], b.layers[0]);
    let none = || Ok(BTreeSet::new());
    for by in [&a.digest, &a.id] {
        let error = ground.store.remove("quay.io/a:v1", &|| Ok(BTreeSet::from([by.clone()]))).unwrap_err();
        assert!(matches!(error, Error::InUse(_)), "{error:?}");
    }
    let mark = ground.dir.path().join("mark");
    assert!(ground.store.keep(&a.digest, &mark).unwrap());
    assert_eq!(std::fs::read_to_string(&mark).unwrap(), a.digest.as_str());
    let marked = || Ok(BTreeSet::from([Digest::parse(&std::fs::read_to_string(&mark).unwrap()).unwrap()]));
    assert!(matches!(ground.store.remove("quay.io/a:v1", &marked), Err(Error::InUse(_))));
    std::fs::remove_file(&mark).unwrap();
    let removed = ground.store.remove("quay.io/a:v1", &none).unwrap();
    assert!(!ground.store.keep(&a.digest, &mark).unwrap() && !mark.exists(), "what is gone can't be kept");
    assert_eq!((removed.layers.len(), removed.bytes), (1, 3));
    assert_eq!(removed.references, ["quay.io/a:v1".to_owned(), format!("quay.io/a@{}", a.digest)]);
    assert!(!a.layers[1].exists() && b.layers.iter().all(|layer| layer.is_dir()));
    assert_eq!((find("quay.io/a:v1"), find("quay.io/b:v1")), (None, Some(b.clone())));
    ground.store.remove(b.id.as_str(), &none).unwrap();
    assert_eq!(ground.leftovers(), Vec::<String>::new());
    assert!(matches!(ground.store.remove("quay.io/b:v1", &none), Err(Error::NotPresent(_))));
}

#[test]
fn a_name_moves_and_another_keeps_its_image() {
    let ground = Ground::new();
    ground.import(&one(b"one").saved(&["a:v1", "a:latest"])).unwrap();
    let [two] = <[_; 1]>::try_from(ground.import(&one(b"two").saved(&["a:latest"])).unwrap()).unwrap();
    assert_eq!(read(&ground.store.find("a").unwrap().unwrap(), "etc/name"), "two");
    assert_eq!(read(&ground.store.find("a:v1").unwrap().unwrap(), "etc/name"), "one");
    ground.import(&one(b"two").saved(&["a:v2"])).unwrap();
    let removed = ground.store.remove("a:latest", &|| Ok(BTreeSet::new())).unwrap();
    assert_eq!(
        (removed.references.as_slice(), removed.images.len()),
        (&["docker.io/library/a:latest".to_owned()][..], 0)
    );
    assert_eq!(ground.store.find("a:v2").unwrap().unwrap().digest, two.digest);
}

#[test]
fn a_layer_that_comes_twice_is_stacked_once_and_an_opaque_one_hides_what_is_below() {
    let ground = Ground::new();
    let (one, two) = (layer(&[("a", b"1")]), layer(&[("a", b"2")]));
    let image = made(&[one.clone(), two.clone(), one.clone()]);
    let found = ground.import(&image.saved(&["twice"])).unwrap().remove(0);
    assert_eq!((found.layers.len(), read(&found, "a").as_str()), (2, "1"));
    let opaque = layer(&[(".wh..wh..opq", b""), ("b", b"3")]);
    let found = ground.import(&made(&[one, opaque, two]).saved(&["opaque"])).unwrap().remove(0);
    assert_eq!(found.layers.len(), 2);
    let none = ground.import(&made(&[]).saved(&["empty"])).unwrap().remove(0);
    assert!(none.layers.is_empty());
}

/// A change of an archive's files, what is said about it, and a name of the test.
type Bent<'a> = (&'a str, Box<dyn Fn(&mut Files)>, &'a str);

#[test]
fn what_is_wrong_with_an_archive_is_said_and_nothing_stays_of_it() {
    let image = one(b"one");
    let change = |files: &mut Files, name: &str, change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::from_slice(&files[name]).unwrap();
        change(&mut value);
        files.insert(name.to_owned(), value.to_string().into_bytes());
    };
    let key = |files: &Files, length: bool| {
        let blobs = files.iter().filter(|(name, _)| name.starts_with("blobs"));
        let found = if length {
            blobs.max_by_key(|(_, content)| content.len())
        } else {
            blobs.min_by_key(|(_, content)| content.len())
        };
        found.unwrap().0.clone()
    };
    let config_name = format!("{}.json", Digest::sha256(&image.configuration()).hex());
    let saved: Vec<Bent> = vec![
        ("no manifest", Box::new(|files| drop(files.remove("manifest.json"))), "neither"),
        ("no layer", Box::new(|files| drop(files.remove("0/layer.tar"))), "there is no 0/layer.tar"),
        (
            "another layer",
            Box::new(|files| drop(files.insert("0/layer.tar".into(), layer(&[])))),
            "should have the digest",
        ),
        (
            "another configuration",
            Box::new(move |files| files.get_mut(&config_name).unwrap().push(b' ')),
            "has the digest",
        ),
        (
            "no name",
            Box::new(move |files| change(files, "manifest.json", &|v| v[0]["RepoTags"] = json!(null))),
            "give the name",
        ),
        (
            "a bad name",
            Box::new(move |files| change(files, "manifest.json", &|v| v[0]["RepoTags"] = json!(["A"]))),
            "lowercase",
        ),
        (
            "no images",
            Box::new(|files| drop(files.insert("manifest.json".into(), b"[]".to_vec()))),
            "no image in it",
        ),
        (
            "no JSON",
            Box::new(|files| drop(files.insert("manifest.json".into(), b"[".to_vec()))),
            "manifest.json",
        ),
        (
            "fewer layers",
            Box::new(move |files| change(files, "manifest.json", &|v| v[0]["Layers"] = json!([]))),
            "1 layers",
        ),
    ];
    let layout: Vec<Bent> = vec![
        (
            "another manifest",
            Box::new(move |files| drop(files.insert(key(files, true), gzip(b"x")))),
            "should have",
        ),
        (
            "a longer layer",
            Box::new(move |files| files.get_mut(&key(files, false)).unwrap().push(b' ')),
            "should have",
        ),
        (
            "no blob",
            Box::new(move |files| drop(files.remove(&key(files, true)))),
            "there is no blobs/sha256/",
        ),
        (
            "a later form",
            Box::new(|files| {
                drop(files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"2.0"}"#.to_vec()))
            }),
            "unknown version",
        ),
        (
            "a tag alone",
            Box::new(move |files| {
                change(files, "index.json", &|v| {
                    v["manifests"][0]["annotations"] = json!({"org.opencontainers.image.ref.name": "v1"})
                })
            }),
            "give the name",
        ),
        (
            "a lie about length",
            Box::new(move |files| change(files, "index.json", &|v| v["manifests"][0]["size"] = json!(1))),
            "should have 1 bytes",
        ),
        (
            "another machine's",
            Box::new(move |files| {
                change(files, "index.json", &|v| {
                    v["manifests"][0]["platform"] = json!({"os": "linux", "architecture": "s390x"})
                })
            }),
            "no match for platform",
        ),
    ];
    for (files, cases) in [(image.saved(&["a"]), saved), (image.layout("quay.io/a:v1", gzip), layout)] {
        Ground::new().import(&files).unwrap();
        for (what, bend, why) in cases {
            let ground = Ground::new();
            let mut bent = files.clone();
            bend(&mut bent);
            let error = ground.import(&bent).expect_err(what);
            assert!(error.to_string().contains(why), "{what}: {error}");
            assert_eq!(ground.leftovers(), Vec::<String>::new(), "{what}");
            assert_eq!(error.reason().as_str().starts_with("Err"), what != "a bad name");
        }
    }
    let ground = Ground::new();
    for junk in [&b""[..], b"junk", &gzip(b"junk"), &gzip(&archive(&image.saved(&["a"])))[..300], &[0; 5000]]
    {
        assert!(ground.import_bytes(junk, None).is_err());
    }
    assert!(ground.store.import(Path::new("/nowhere"), None).is_err());
    assert_eq!(ground.leftovers(), Vec::<String>::new());
}

#[test]
fn an_image_gets_the_name_that_is_given() {
    let ground = Ground::new();
    let files = one(b"one").layout("v1", gzip);
    let image = ground.import_bytes(&archive(&files), Some("example.org/mine")).unwrap().remove(0);
    assert_eq!(
        image.references,
        ["example.org/mine:latest".to_owned(), format!("example.org/mine@{}", image.digest)]
    );
}

#[test]
fn of_an_image_for_many_machines_this_one_s_is_taken() {
    let (other, mine) = (one(b"other"), one(b"mine"));
    let mut files = mine.layout("x/y:v1", gzip);
    let (other_blobs, mut other_manifest) = other.blobs(gzip);
    let (_, mut my_manifest) = mine.blobs(gzip);
    other_manifest["platform"] = json!({"os": "linux", "architecture": "s390x"});
    my_manifest["platform"] = json!({"os": "linux", "architecture": crate::made::architecture()});
    let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [other_manifest, my_manifest]});
    let index = index.to_string().into_bytes();
    let digest = Digest::sha256(&index);
    let top = json!({"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest, "size": index.len(), "annotations": {"io.containerd.image.name": "docker.io/x/y:v1"}}]});
    files.insert("index.json".into(), top.to_string().into_bytes());
    files.insert(format!("blobs/sha256/{}", digest.hex()), index);
    let all =
        other_blobs.into_iter().map(|(digest, content)| (format!("blobs/sha256/{}", digest.hex()), content));
    files.extend(all);
    let ground = Ground::new();
    ground.import(&files).unwrap();
    let found = ground.store.find(&format!("x/y@{digest}")).unwrap().unwrap();
    assert_eq!(read(&found, "etc/name"), "mine", "the index's digest names it too");
    assert!(found.image_id(&Reference::parse("x/y:v1").unwrap()).starts_with("docker.io/x/y@sha256:"));
    let platform = Platform { os: "linux".into(), architecture: "riscv64".into(), variant: String::new() };
    let ground = Ground::with(Options { platform, ..Options::default() });
    let error = ground.import(&files).unwrap_err().to_string();
    assert!(error.contains("no match for platform linux/riscv64"), "{error}");
    let error = ground.import(&mine.saved(&["x/y"])).unwrap_err().to_string();
    assert!(error.contains("no match for platform linux/riscv64"), "{error}");
}

#[test]
fn a_layer_that_is_too_large_leaves_nothing() {
    let limits = Limits { bytes: 1 << 20, entries: 100 };
    let ground = Ground::with(Options { limits, ..Options::default() });
    let zeros = vec![0; 2 << 20];
    let image = made(&[layer(&[("zeros", &zeros)])]);
    let folder = ground.dir.path().join("layout");
    write(&image.layout("quay.io/a:v1", gzip), &folder);
    let error = ground.store.import(&folder, None).unwrap_err();
    assert!(error.to_string().contains("unpacks to more than the 1048576 bytes"), "{error}");
    assert_eq!(ground.leftovers(), Vec::<String>::new());
}
