//! A cluster's folder as it is made, found again, refused and finished.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

use super::*;

/// Every file under a folder with its contents.
fn contents(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(contents(&entry));
        } else {
            found.insert(entry.clone(), fs::read(&entry).unwrap());
        }
    }
    found
}

#[test]
fn a_cluster_is_made_once_and_found_again() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("deep/cluster");
    let folder = Folder::open_or_create(&path, 3, NetKind::Loopback).unwrap();
    folder.write_kubeconfig("https://127.0.0.100:6443").unwrap();
    let id = folder.record().id.clone();
    drop(folder);
    let before = contents(&path);
    let folder = Folder::open_or_create(&path, 3, NetKind::Loopback).unwrap();
    assert_eq!(folder.record().id, id);
    assert_eq!(contents(&path), before);
}

#[test]
fn a_host_finds_all_that_it_needs() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::open_or_create(parent.path(), 3, NetKind::Netns).unwrap();
    let config = HostConfig::load(&folder.config_file("n2")).unwrap();
    assert_eq!((config.name.as_str(), config.address.to_string().as_str()), ("n2", "10.73.0.2"));
    assert_eq!(config.peers.len(), 3);
    assert_eq!(config.net, NetConfig::Netns { link: "eth0".into() });
    Identity::load(&config.pki_dir, &config.name).unwrap();
    pki::Trust::load(&config.pki_dir).unwrap();
    let key = pki::HeartbeatKey::load(&config.pki_dir).unwrap();
    let other = HostConfig::load(&folder.config_file("n3")).unwrap();
    assert_eq!(pki::HeartbeatKey::load(&other.pki_dir).unwrap().expose(), key.expose());
    assert!(config.data_dir.is_dir());
}

#[test]
fn what_its_hosts_were_told_of_is_told_them_again() {
    let parent = tempfile::tempdir().unwrap();
    let told = || {
        let folder = Folder::open_or_create(parent.path(), 1, NetKind::Loopback).unwrap();
        HostConfig::load(&folder.config_file("n1")).unwrap().static_pods
    };
    assert_eq!(told(), None);
    for path in ["/etc/one", "/etc/two"] {
        let mut plan = ClusterPlan::new(1, NetKind::Loopback);
        plan.static_pods = Some(path.into());
        drop(Folder::open_or_make(parent.path(), plan).unwrap());
        assert_eq!(told(), Some(path.into()));
    }
}

#[test]
fn the_kubeconfig_is_for_the_owners_eyes() {
    let parent = tempfile::tempdir().unwrap();
    let folder = Folder::open_or_create(parent.path(), 1, NetKind::Loopback).unwrap();
    let path = folder.write_kubeconfig("https://127.0.0.1:7").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(fs::read_to_string(&path).unwrap().contains("server: https://127.0.0.1:7\n"));
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path();
    let open = |nodes, net| Folder::open_or_create(path, nodes, net).map(drop).unwrap_err().to_string();

    fs::write(path.join("letter"), "dear").unwrap();
    assert!(open(3, NetKind::Loopback).contains("isn't empty"));
    assert!(Folder::open_or_create(&path.join("letter"), 3, NetKind::Loopback).is_err());
    assert_eq!(contents(path).len(), 1);
    fs::remove_file(path.join("letter")).unwrap();

    let held = Folder::open_or_create(path, 3, NetKind::Loopback).unwrap();
    let before = contents(path);
    assert!(open(3, NetKind::Loopback).contains("runs on"));
    assert!(open(1, NetKind::Loopback).contains("use --nodes 3"));
    assert!(open(3, NetKind::Netns).contains("use --net loopback"));
    assert!(open(0, NetKind::Netns).contains("1 to 9 nodes"));
    drop(held);
    fs::write(path.join(RECORD), "{").unwrap();
    assert!(open(3, NetKind::Loopback).contains("can't be understood"));
    fs::write(path.join(RECORD), &before[&path.join(RECORD)]).unwrap();
    assert_eq!(contents(path), before);
}

#[test]
fn what_was_lost_is_said_and_nothing_made_in_its_place() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("cluster");
    let open = || Folder::open_or_create(&path, 3, NetKind::Loopback).map(drop).unwrap_err().to_string();
    drop(Folder::open_or_create(&path, 3, NetKind::Loopback).unwrap());
    fs::write(path.join("n2").join(HOST_LOG), "").unwrap();
    for (lost, says) in [
        (RECORD, "cluster.json that says which is gone; put it back"),
        (PKI, "ca.crt is gone"),
        ("pki/ca.key", "ca.key is gone"),
    ] {
        fs::rename(path.join(lost), parent.path().join("kept")).unwrap();
        let before = contents(&path);
        let said = open();
        assert!(said.contains(says), "{lost}: {said}");
        assert_eq!(contents(&path), before, "{lost}");
        fs::rename(parent.path().join("kept"), path.join(lost)).unwrap();
    }
    Folder::open_or_create(&path, 3, NetKind::Loopback).unwrap();
}

#[test]
fn a_cluster_s_folder_is_its_owner_s_alone() {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("state/cluster");
    drop(Folder::open_or_create(&path, 1, NetKind::Loopback).unwrap());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_cluster_that_was_begun_is_finished() {
    let parent = tempfile::tempdir().unwrap();
    drop(Folder::open_or_create(parent.path(), 2, NetKind::Loopback).unwrap());
    fs::remove_file(parent.path().join(RECORD)).unwrap();
    fs::remove_dir_all(parent.path().join("n2")).unwrap();
    let folder = Folder::open_or_create(parent.path(), 2, NetKind::Loopback).unwrap();
    assert!(folder.config_file("n2").exists());
}
