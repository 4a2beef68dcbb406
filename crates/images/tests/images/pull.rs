use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use images::{
    Credentials, Digest, Error, Image, Keyring, Limits, Options, Patience, Platform, Puller, Reference,
    Registries, Settings, Store,
};
use serde_json::json;

use crate::made::{Made, layer, made};
use crate::registry::{End, Registry, Reply, broken, patience, reply};

struct Ground {
    _dir: tempfile::TempDir,
    store: Store,
    puller: Puller,
}

impl Ground {
    fn new() -> Self {
        Ground::with(Settings { patience: patience(), ..Settings::default() }, Options::default())
    }

    fn impatient() -> Self {
        let patience = Patience { answer: Duration::from_millis(300), ..patience() };
        Ground::with(Settings { patience, ..Settings::default() }, Options::default())
    }

    fn with(settings: Settings, options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open_with(&dir.path().join("store"), options).unwrap();
        let puller = Puller::new(store.clone(), settings).unwrap();
        Ground { _dir: dir, store, puller }
    }

    async fn pull(&self, name: &str) -> Result<Arc<Image>, Arc<Error>> {
        self.puller.pull(&Reference::parse(name).unwrap(), &Keyring::default()).await
    }

    async fn pull_as(&self, name: &str, keyring: &Keyring) -> Result<Arc<Image>, Arc<Error>> {
        self.puller.pull(&Reference::parse(name).unwrap(), keyring).await
    }

    async fn fails(&self, name: &str, why: &str) -> Arc<Error> {
        let error = self.pull(name).await.expect_err(why);
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(self.store.find(name).unwrap(), None);
        self.until_all_is_finished().await;
        error
    }

    /// The thread that unpacks a layer sees by itself that nobody wants it any more.
    async fn until_all_is_finished(&self) {
        while self.unfinished() > 0 {
            tokio::task::yield_now().await;
        }
    }

    /// What lies in the store that isn't finished.
    fn unfinished(&self) -> usize {
        let count = |folder: std::path::PathBuf| fs::read_dir(folder).unwrap().count();
        let temporary = fs::read_dir(self.store.folder().join("temporary")).unwrap();
        // One file says that this process lives.
        temporary.map(|entry| count(entry.unwrap().path()) - 1).sum()
    }
}

fn one(text: &str) -> Made {
    let long = text.repeat(40_000);
    made(&[
        layer(&[("bin/sh", b"shell")]),
        layer(&[("etc/name", text.as_bytes()), ("long", long.as_bytes())]),
    ])
}

fn read(image: &Image, path: &str) -> String {
    fs::read_to_string(image.layers.last().unwrap().join(path)).unwrap()
}

fn keyring(location: &str, users: &[&str]) -> Keyring {
    let mut keyring = Keyring::default();
    for user in users {
        keyring.add(location, Credentials { user: (*user).to_owned(), password: "password".into() });
    }
    keyring
}

#[tokio::test]
async fn an_image_comes_by_tag_and_by_digest_and_only_once() {
    let registry = Registry::start().await;
    let descriptor = registry.push("v1", &one("one"));
    let digest = descriptor["digest"].as_str().unwrap();
    let ground = Ground::new();
    let name = registry.name("a/b:v1");
    let image = ground.pull(&name).await.unwrap();
    assert_eq!((read(&image, "etc/name").as_str(), image.digest.as_str()), ("one", digest));
    assert_eq!(image.image_id(&Reference::parse(&name).unwrap()), registry.name(&format!("a/b@{digest}")));
    assert_eq!(ground.store.find(&name).unwrap(), Some(image.clone()));
    assert_eq!(registry.asked("/blobs/"), 3);
    // By digest, and by another tag of the same: nothing comes again but the manifest.
    registry.push("v2", &one("one"));
    for name in [
        registry.name(&format!("a/b@{digest}")),
        registry.name("a/b:v2"),
        registry.name(&format!("c:v1@{digest}")),
    ] {
        assert_eq!(ground.pull(&name).await.unwrap().digest, image.digest);
        assert!(ground.store.find(&name).unwrap().is_some(), "{name}");
    }
    assert_eq!(registry.asked("/blobs/"), 3);
    assert_eq!(registry.asked("/v2/a/b/manifests/v1"), 1);
    // What has a new upper layer takes the lower one from here.
    registry.push("v3", &one("three"));
    assert_eq!(read(&ground.pull(&registry.name("a/b:v3")).await.unwrap(), "etc/name"), "three");
    assert_eq!(registry.asked("/blobs/"), 5, "a configuration and a layer");
    assert_eq!(ground.unfinished(), 0);
}

#[tokio::test]
async fn of_many_machines_images_this_one_s_is_pulled() {
    let registry = Registry::start().await;
    let mut manifests = Vec::new();
    for (text, architecture) in [("other", "s390x".to_owned()), ("mine", crate::made::architecture())] {
        let mut descriptor = registry.push(text, &one(text));
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        manifests.push(descriptor);
    }
    let list = "application/vnd.docker.distribution.manifest.list.v2+json";
    let index = json!({"schemaVersion": 2, "mediaType": list, "manifests": manifests});
    let digest = registry.push_manifest("v1", list, index.to_string().into_bytes());
    let ground = Ground::new();
    let image = ground.pull(&registry.name("a:v1")).await.unwrap();
    assert_eq!(read(&image, "etc/name"), "mine");
    assert!(ground.store.find(&registry.name(&format!("a@{digest}"))).unwrap().is_some());
    let platform = Platform { os: "linux".into(), architecture: "riscv64".into(), variant: String::new() };
    let settings = Settings { patience: patience(), ..Settings::default() };
    let ground = Ground::with(settings, Options { platform, ..Options::default() });
    ground.fails(&registry.name("a:v1"), "no match for platform linux/riscv64").await;
    ground.fails(&registry.name("a:mine"), "no match for platform linux/riscv64").await;
}

#[tokio::test]
async fn a_token_is_asked_for_once_with_the_right_credentials() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    let realm = registry.address;
    registry.rule(move |seen, _| {
        if seen.path.starts_with("/token") {
            // user:password
            return Some(match seen.header("authorization") {
                "Basic dXNlcjpwYXNzd29yZA==" => reply(200, &[], r#"{"token": "good", "expires_in": 300}"#),
                _ => reply(401, &[], r#"{"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}"#),
            });
        }
        let challenge =
            format!(r#"Bearer realm="http://{realm}/token",service="a service",scope="repository:a/b:pull""#);
        (seen.header("authorization") != "Bearer good")
            .then(|| reply(401, &[("www-authenticate", &challenge)], ""))
    });
    let name = registry.name("a/b:v1");
    let error = Ground::new().fails(&name, "pull access denied").await;
    assert!(error.to_string().contains("who are you?"), "{error}");
    assert_eq!(error.reason().as_str(), "ErrImagePull");
    let before = registry.asked("/token");
    let host = registry.address.to_string();
    let ground = Ground::new();
    // The first who fits isn't the right one.
    ground.pull_as(&name, &keyring(&host, &["stranger", "user"])).await.unwrap();
    assert_eq!(registry.asked("/token") - before, 2, "one each, for all that is pulled");
    let token = registry.seen().into_iter().find(|seen| seen.path.starts_with("/token")).unwrap();
    assert_eq!(token.path, "/token?service=a%20service&scope=repository%3Aa%2Fb%3Apull");
}

#[tokio::test]
async fn basic_authentication_is_answered_and_nobody_else_is_told() {
    let (registry, elsewhere) = (Registry::start().await, Registry::start().await);
    registry.push("v1", &one("one"));
    elsewhere.push("v1", &one("one"));
    let other = elsewhere.address;
    registry.rule(move |seen, _| match seen.header("authorization") {
        "Basic dXNlcjpwYXNzd29yZA==" if seen.path.contains("/blobs/") => {
            Some(reply(307, &[("location", &format!("http://{other}{}", seen.path))], ""))
        }
        "Basic dXNlcjpwYXNzd29yZA==" => None,
        _ => Some(reply(401, &[("www-authenticate", r#"Basic realm="it""#)], "")),
    });
    let ground = Ground::new();
    ground.fails(&registry.name("a:v1"), "pull access denied").await;
    let keyring = keyring(&registry.address.to_string(), &["user"]);
    ground.pull_as(&registry.name("a:v1"), &keyring).await.unwrap();
    assert_eq!(elsewhere.asked("/blobs/"), 3);
    assert!(elsewhere.seen().iter().all(|seen| seen.header("authorization").is_empty()));
}

#[tokio::test]
async fn redirections_lead_neither_in_circles_nor_out_of_tls() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    let ground = Ground::new();
    let name = registry.name("a:v1");
    for (location, why) in [
        ("/v2/a/manifests/v1", "without end"),
        ("http://192.0.2.1/", "without TLS, which the configuration doesn't allow"),
        ("ftp://127.0.0.1/", "neither https nor http"),
        ("nowhere", "neither https nor http"),
        ("http://a b/", "no URL"),
    ] {
        registry.rule(move |_, _| Some(reply(302, &[("location", location)], "")));
        ground.fails(&name, why).await;
    }
    registry.rule(|_, _| Some(reply(302, &[], "")));
    ground.fails(&name, "doesn't say where").await;
    let bearer = r#"Bearer realm="http://192.0.2.1/token""#;
    registry.rule(move |_, _| Some(reply(401, &[("www-authenticate", bearer)], "")));
    ground.fails(&name, "without TLS").await;
}

#[tokio::test]
async fn who_is_busy_is_asked_again_and_not_for_ever() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    registry.rule(|_, count| match count {
        1 => Some(reply(429, &[("retry-after", "1")], "")),
        2 => Some(reply(503, &[], "")),
        _ => None,
    });
    let ground = Ground::new();
    let name = registry.name("a:v1");
    ground.pull(&name).await.unwrap();
    assert_eq!((registry.asked("/manifests/"), registry.asked("/blobs/")), (3, 9));
    let ground = Ground::new();
    let before = registry.asked("/manifests/");
    registry.rule(|_, _| Some(reply(500, &[], "not JSON")));
    ground.fails(&name, "500").await;
    assert_eq!(registry.asked("/manifests/") - before, 4);
    registry.rule(|_, _| {
        Some(reply(429, &[("retry-after", "3600")], r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#))
    });
    ground.fails(&name, "toomanyrequests").await;
    assert_eq!(registry.asked("/manifests/") - before, 5, "nobody waits for an hour");
}

#[tokio::test]
async fn what_isn_t_there_is_said_in_the_registry_s_words() {
    let registry = Registry::start().await;
    let error = Ground::new().fails(&registry.name("a:v1"), "manifest_unknown: there is none").await;
    assert!(error.to_string().contains("not found"), "{error}");
    assert_eq!(registry.asked("/"), 1, "it isn't asked again");
    drop(registry);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let error = Ground::new().fails(&format!("{gone}/a"), "refused").await;
    assert_eq!(error.reason().as_str(), "RegistryUnavailable");
}

#[tokio::test]
async fn a_connection_that_breaks_or_hangs_is_taken_up_where_it_was() {
    for (end, obeys) in [(End::Breaks, true), (End::Breaks, false), (End::Hangs, true)] {
        let registry = Arc::new(Registry::start().await);
        registry.push("v1", &one("one"));
        let layers = registry.layers();
        let blobs: BTreeMap<String, Vec<u8>> =
            layers.iter().map(|digest| (digest.to_string(), registry.blob(digest))).collect();
        registry.rule(move |seen, count| {
            let blob = blobs.get(seen.path.rsplit('/').next()?)?;
            let half = blob.len() / 2;
            match (count, obeys) {
                (1, _) => Some(broken(200, &[], &blob[..half], blob.len(), end)),
                // It doesn't know ranges.
                (_, false) => Some(reply(200, &[], blob.clone())),
                _ => None,
            }
        });
        let ground = if matches!(end, End::Hangs) { Ground::impatient() } else { Ground::new() };
        let image = ground.pull(&registry.name("a:v1")).await.unwrap();
        assert_eq!(read(&image, "etc/name"), "one");
        let ranges = registry.seen().iter().filter(|seen| !seen.header("range").is_empty()).count();
        assert_eq!(ranges, layers.len());
        assert_eq!(ground.unfinished(), 0);
    }
}

#[tokio::test]
async fn a_registry_that_hangs_is_given_up() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    registry.rule(|_, _| Some(broken(200, &[], b"", 100, End::Hangs)));
    let error = Ground::impatient().fails(&registry.name("a:v1"), "nothing came for 300ms").await;
    assert_eq!(error.reason().as_str(), "RegistryUnavailable");
    // One that takes connections and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/a", silent.local_addr().unwrap());
    Ground::impatient().fails(&name, "it didn't answer in time").await;
}

/// Changes an answer: by the end of the path that was asked for, and what would be right there if it is a layer.
type Lie = fn(&str, Vec<u8>) -> Option<Reply>;

async fn lying(lie: Lie) -> Registry {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    let layers = registry.layers().into_iter();
    let layers: BTreeMap<String, Vec<u8>> =
        layers.map(|digest| (digest.to_string(), registry.blob(&digest))).collect();
    registry.rule(move |seen, _| {
        let last = seen.path.rsplit('/').next()?;
        lie(last, layers.get(last).cloned().unwrap_or_default())
    });
    registry
}

#[tokio::test]
async fn lies_are_found() {
    let lies: [(&str, &str, Lie); 10] = [
        ("a longer layer", "should have", |_, mut layer| {
            layer.push(0);
            (layer.len() > 1).then(|| reply(200, &[], layer))
        }),
        ("a shorter layer", "should have", |_, mut layer| layer.pop().map(|_| reply(200, &[], layer))),
        ("another layer", "should have the digest", |_, mut layer| {
            // A comment in gzip's header: it unpacks to the same.
            layer.get_mut(9).map(|byte| *byte ^= 1).map(|()| reply(200, &[], layer))
        }),
        ("another configuration", "should have", |last, layer| {
            (layer.is_empty() && last != "v1").then(|| reply(200, &[], "{}"))
        }),
        ("a digest that isn't the manifest's", "should have the digest", |last, _| {
            let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
            (last == "v1").then(|| reply(200, &[("docker-content-digest", empty)], "{}"))
        }),
        ("a manifest without end", "more than", |last, _| {
            (last == "v1").then(|| reply(200, &[], vec![b' '; 9 << 20]))
        }),
        ("no manifest", "manifest v1", |last, _| (last == "v1").then(|| reply(200, &[], "<html>"))),
        ("no index", "manifest v1", |last, _| (last == "v1").then(|| reply(200, &[], r#"{"manifests": 5}"#))),
        ("an index of itself", "no match for platform", |last, _| {
            (last == "v1").then(|| reply(200, &[], r#"{"manifests": []}"#))
        }),
        ("another part", "another part", |last, layer| {
            (layer.len() > 1).then(|| reply(206, &[("content-range", "bytes 7-9/10")], last.to_owned()))
        }),
    ];
    let ground = Ground::new();
    for (what, why, lie) in lies {
        let registry = lying(lie).await;
        let error = ground.fails(&registry.name("a:v1"), why).await;
        assert_eq!(error.reason().as_str(), "ErrImagePull", "{what}");
    }
    let registry = Registry::start().await;
    let wrong = Digest::sha256(b"other");
    registry.rule(move |_, _| Some(reply(200, &[], "{}")));
    ground.fails(&registry.name(&format!("a@{wrong}")), "should have the digest").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_each_blob_comes_once() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    registry.push("v2", &one("two"));
    let ground = Ground::new();
    let names: Vec<String> = (0..40).map(|n| registry.name(&format!("a:v{}", n % 2 + 1))).collect();
    let pulls = futures::future::join_all(names.iter().map(|name| ground.pull(name))).await;
    for (n, image) in pulls.into_iter().enumerate() {
        assert_eq!(read(&image.unwrap(), "etc/name"), ["one", "two"][n % 2]);
    }
    assert_eq!(registry.asked("/manifests/"), 2);
    let mut blobs: Vec<String> =
        registry.seen().into_iter().map(|seen| seen.path).filter(|path| path.contains("/blobs/")).collect();
    blobs.sort();
    let count = blobs.len();
    blobs.dedup();
    assert_eq!((blobs.len(), count), (5, 5), "two configurations, three layers: the lower one is of both");
}

#[tokio::test]
async fn a_pull_that_failed_keeps_nobody_from_the_next() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = calls.clone();
    registry.rule(move |asked, _| {
        let is_first = asked.path.contains("/blobs/") && seen.fetch_add(1, Ordering::SeqCst) < 2;
        is_first.then(|| reply(404, &[], ""))
    });
    let ground = Ground::new();
    let first = ground.pull(&registry.name("a:v1")).await;
    let second = ground.pull(&registry.name("a:v1")).await;
    let third = ground.pull(&registry.name("a:v1")).await;
    assert!(first.is_err() && second.is_err() && third.is_ok(), "{first:?} {second:?} {third:?}");
}

#[tokio::test]
async fn mirrors_are_asked_first_and_the_registry_last() {
    let (empty, mirror, registry) =
        (Registry::start().await, Registry::start().await, Registry::start().await);
    mirror.push("v1", &one("mirror"));
    registry.push("v1", &one("registry"));
    registry.push("v2", &one("registry"));
    let gone = "127.0.0.1:1";
    let entry = json!({registry.address.to_string(): {"plainHttp": true,
        "mirrors": [gone, empty.address.to_string(), format!("{}/below", mirror.address)]}});
    let registries: Registries = serde_json::from_value(entry).unwrap();
    let ground = Ground::with(Settings { registries, patience: patience() }, Options::default());
    let keyring = keyring(&registry.address.to_string(), &["user"]);
    let image = ground.pull_as(&registry.name("a/b:v1"), &keyring).await.unwrap();
    assert_eq!(read(&image, "etc/name"), "mirror");
    assert!(ground.store.find(&registry.name("a/b:v1")).unwrap().is_some(), "under the registry's name");
    let of = registry.address.to_string().replace('.', "%2E").replace(':', "%3A");
    assert_eq!(mirror.seen()[0].path, format!("/below/v2/a/b/manifests/v1?ns={of}"));
    assert_eq!(registry.asked("/"), 0);
    let image = ground.pull(&registry.name("a/b:v2")).await.unwrap();
    assert_eq!(read(&image, "etc/name"), "registry");
    ground.fails(&registry.name("a/b:v3"), &format!("{}/a/b: not found", registry.address)).await;
}

#[tokio::test]
async fn a_layer_that_unpacks_to_too_much_ends_its_pull() {
    let registry = Registry::start().await;
    let zeros = vec![0; 64 << 20];
    registry.push("v1", &made(&[layer(&[("zeros", &zeros)])]));
    let limits = Limits { bytes: 1 << 20, entries: 10 };
    let settings = Settings { patience: patience(), ..Settings::default() };
    let ground = Ground::with(settings, Options { limits, ..Options::default() });
    ground.fails(&registry.name("a:v1"), "unpacks to more than the 1048576 bytes").await;
    assert_eq!(fs::read_dir(ground.store.folder().join("layers/sha256")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_pull_that_nobody_waits_for_ends_and_leaves_nothing() {
    let registry = Registry::start().await;
    registry.push("v1", &one("one"));
    let layers = registry.layers();
    let blobs: BTreeMap<String, Vec<u8>> =
        layers.iter().map(|digest| (digest.to_string(), registry.blob(digest))).collect();
    registry.rule(move |seen, _| {
        let blob = blobs.get(seen.path.rsplit('/').next()?)?;
        Some(broken(200, &[], &blob[..blob.len() / 2], blob.len(), End::Hangs))
    });
    let ground = Ground::new();
    let name = registry.name("a:v1");
    {
        let mut pull = std::pin::pin!(ground.pull(&name));
        // Until both layers are on their way.
        while registry.asked("/blobs/") < 3 || ground.unfinished() == 0 {
            let step = tokio::time::timeout(Duration::from_millis(5), &mut pull).await;
            assert!(step.is_err());
        }
    }
    ground.until_all_is_finished().await;
    assert!(ground.store.list().unwrap().is_empty());
}
