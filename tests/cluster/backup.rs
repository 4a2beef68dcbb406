//! `backup` under load, and `restore` to clusters of other sizes.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret, Service};
use kube::api::{Api, ListParams, ObjectMeta, PostParams};

use crate::harness::{Cluster, HOLDFAST, text, wait_for};

fn config_map(n: usize) -> ConfigMap {
    let metadata = ObjectMeta { name: Some(format!("pair-{n}")), ..ObjectMeta::default() };
    ConfigMap { metadata, ..ConfigMap::default() }
}

fn secret() -> Secret {
    let metadata = ObjectMeta { name: Some("kept".into()), ..ObjectMeta::default() };
    let string_data = Some(BTreeMap::from([("key".to_owned(), "treasure".to_owned())]));
    Secret { metadata, string_data, ..Secret::default() }
}

fn restore(file: &Path, dir: &Path, nodes: usize) -> Output {
    let mut command = Command::new(HOLDFAST);
    command.arg("restore").arg(file).arg("--dir").arg(dir).args(["--nodes", &nodes.to_string()]);
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_becomes_clusters_of_other_sizes() {
    let cluster = Cluster::up().await;
    let client = cluster.client().await.unwrap();
    let secrets = Api::<Secret>::namespaced(client.clone(), "default");
    let made = secrets.create(&PostParams::default(), &secret()).await.unwrap();

    // Maps are written one after the other: a state of one revision has no gap in their numbers.
    let written = Arc::new(AtomicUsize::new(0));
    let ends = Arc::new(AtomicBool::new(false));
    let writer = tokio::spawn({
        let (written, ends) = (written.clone(), ends.clone());
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        async move {
            while !ends.load(Ordering::Relaxed) {
                let n = written.load(Ordering::Relaxed);
                maps.create(&PostParams::default(), &config_map(n)).await.unwrap();
                written.store(n + 1, Ordering::Relaxed);
            }
        }
    });
    wait_for("some load", || async { (written.load(Ordering::Relaxed) >= 50).then_some(()) }).await;
    let file = cluster.dir().join("state.backup");
    let before = written.load(Ordering::Relaxed);
    let output = tokio::task::block_in_place(|| cluster.holdfast(&["backup", file.to_str().unwrap()]));
    assert!(output.status.success(), "{}", text(&output));
    let after = written.load(Ordering::Relaxed);
    ends.store(true, Ordering::Relaxed);
    writer.await.unwrap();
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "Secrets are in it");

    let keep = tempfile::tempdir().unwrap();
    let kept = keep.path().join("state.backup");
    std::fs::rename(&file, &kept).unwrap();
    drop(cluster);
    for nodes in [1, 5] {
        let dir = tempfile::tempdir().unwrap();
        let output = restore(&kept, &dir.path().join("cluster"), nodes);
        assert!(output.status.success(), "{}", text(&output));
        let again = restore(&kept, &dir.path().join("cluster"), nodes);
        assert!(!again.status.success() && text(&again).contains("isn't empty"), "{}", text(&again));

        let cluster = Cluster::start(dir.path(), nodes, "auto");
        cluster.wait_until_ready(nodes).await;
        let client = cluster.client().await.unwrap();
        let names = Api::<Node>::all(client.clone()).list(&ListParams::default()).await.unwrap();
        assert_eq!(names.items.len(), nodes, "hosts that are no more are no nodes");
        let found = Api::<Secret>::namespaced(client.clone(), "default").get("kept").await.unwrap();
        assert_eq!((found.data, found.metadata.uid), (made.data.clone(), made.metadata.uid.clone()));
        assert_eq!(found.metadata.resource_version, made.metadata.resource_version);
        let maps = Api::<ConfigMap>::namespaced(client.clone(), "default");
        let list = maps.list(&ListParams::default()).await.unwrap();
        let there =
            list.iter().filter(|map| map.metadata.name.as_ref().unwrap().starts_with("pair-")).count();
        assert!((before..=after + 1).contains(&there), "{there} maps, {before} before and {after} after");
        for n in 0..there {
            assert!(maps.get_opt(&format!("pair-{n}")).await.unwrap().is_some(), "pair-{n} of {there}");
        }
        // A client that remembers a later revision of the old cluster has to read anew.
        let revision: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
        assert!(revision > 1_000_000_000);
        Api::<Service>::namespaced(client, "default").get("kubernetes").await.unwrap();
        maps.create(&PostParams::default(), &config_map(there)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_newest_backups() {
    let cluster = Cluster::with(1, "auto").await;
    let folder = cluster.dir().join("backups");
    let to = folder.to_str().unwrap().to_owned();
    let there = || {
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".backup")).collect();
        names.sort();
        names
    };
    let output = tokio::task::block_in_place(|| cluster.holdfast(&["backup", "--to", &to, "--keep", "2"]));
    assert!(output.status.success(), "{}", text(&output));
    let first = there();
    assert_eq!(first.len(), 1, "{first:?}");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&folder.join(&first[0]))), (0o700, 0o600), "Secrets are in it");

    // What a program left that was killed is nobody's.
    std::fs::write(folder.join(".holdfast-backup-killed"), "half of it").unwrap();
    let mut command = tokio::process::Command::new(HOLDFAST);
    command.args(["backup", "--every", "1s", "--keep", "2", "--to", &to]);
    command.env("KUBECONFIG", cluster.kubeconfig()).kill_on_drop(true);
    let mut series = command.spawn().unwrap();
    let rolled = || async { (there().len() == 2 && !there().contains(&first[0])).then_some(()) };
    wait_for("two newer backups", rolled).await;
    assert!(!folder.join(".holdfast-backup-killed").exists());
    series.kill().await.unwrap();
    let newest = folder.join(there().pop().unwrap());
    let dir = cluster.dir().join("restored");
    let output = tokio::task::block_in_place(|| restore(&newest, &dir, 1));
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_damaged_backup_is_refused_by_name() {
    let rt = tokio::runtime::Runtime::new().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.backup");
    rt.block_on(async {
        let cluster = Cluster::with(1, "auto").await;
        let output = cluster.holdfast(&["backup", file.to_str().unwrap()]);
        assert!(output.status.success(), "{}", text(&output));
        let nowhere = cluster.holdfast(&["backup", "/nowhere/at/all"]);
        assert!(!nowhere.status.success() && text(&nowhere).contains("/nowhere"), "{}", text(&nowhere));
    });
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    let longer = [&whole[..], b"x"].concat();
    for (what, bytes) in [
        ("checksum", &flipped[..]),
        ("cut off", &whole[..whole.len() - 1]),
        ("cut off", &whole[..20]),
        ("checksum", &longer[..]),
        ("isn't a backup", b"SQLite format 3"),
        ("isn't a backup", b""),
    ] {
        let broken = folder.path().join("broken.backup");
        std::fs::write(&broken, bytes).unwrap();
        let output = restore(&broken, &folder.path().join("new"), 3);
        let said = text(&output);
        assert!(!output.status.success() && said.contains("broken.backup") && said.contains(what), "{said}");
        assert!(!folder.path().join("new").exists());
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "nothing is left of what was refused");
}
