//! Files that people and programs leave in a cluster's folder or give to the client, and datagrams on the machine's loopback.

use std::fs;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::grow::Growing;
use crate::mutate;

fn bent(rng: &mut StdRng, text: String) -> Vec<u8> {
    if rng.random() {
        return text.into_bytes();
    }
    let others = text.clone();
    mutate::bytes(rng, text.into_bytes(), others.as_bytes())
}

fn changed(rng: &mut StdRng, corpus: &Corpus, value: Value) -> Value {
    let other = corpus.values[rng.random_range(0..corpus.values.len())].clone();
    let other = if rng.random() { value.clone() } else { other };
    mutate::tree(rng, value, &other)
}

fn kubeconfig_value() -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "c", "preferences": {},
        "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u", "namespace": "default"}}],
        "clusters": [{"name": "k", "cluster": {"server": "https://127.0.0.1:6443", "tls-server-name": "x",
            "certificate-authority-data": "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0t"}}],
        "users": [{"name": "u", "user": {"client-certificate-data": "YQ==", "client-key-data": "YQ==", "token": "t"}}]})
}

pub(crate) fn make_kubeconfig(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let value = changed(rng, corpus, kubeconfig_value());
    bent(rng, values::to_yaml(&value))
}

/// A kubeconfig is one, or says where it is none; and so is what a client makes of it.
pub(crate) fn kubeconfig(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    // Nothing lies there, so that no path leads anywhere.
    match client::Kubeconfig::parse(&text, Path::new("/nonexistent"), "the kubeconfig") {
        Ok(kubeconfig) => drop(client::Client::new(&kubeconfig)),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

pub(crate) fn make_manifest(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let mut text = String::new();
    for _ in 0..rng.random_range(1..4) {
        let value = corpus.values[rng.random_range(0..corpus.values.len())].clone();
        text += "---\n";
        text += &values::to_yaml(&changed(rng, corpus, value));
    }
    bent(rng, text)
}

/// A manifest's documents are objects, or it says where they are none.
pub(crate) fn manifest(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Err(error) = client::documents(&text, "the manifest") {
        assert!(!error.to_string().is_empty());
    }
}

/// One of the files that `up` and its hosts find again: a byte for which, and its content.
pub(crate) fn make_file(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let datastore = json!({"endpoints": ["https://e:2379"], "prefix": "/x", "ca": "/ca"});
    let files = [
        json!({"version": 1, "id": "i", "name": "holdfast", "nodes": 3, "net": "netns", "datastore": datastore}),
        json!({"clusterId": "c", "name": "n1", "address": "10.73.0.1", "peers": {"n1": "10.73.0.1"},
            "hostCidr": "10.73.0.0/24", "podCidr": "10.244.1.0/24", "clusterCidr": "10.244.0.0/16",
            "serviceCidr": "10.96.0.0/16", "virtualAddress": "10.73.0.100", "net": {"kind": "netns", "link": "eth0"},
            "ports": {"api": 6443}, "timeouts": {"store": {"tick": "10ms"}},
            "fencing": {"watchdog": "/w", "silentFor": "1s", "agents": {"n2": {"program": "/f", "parameters": {"ip": "a"}, "tries": 1}}},
            "dataDir": "/d", "begunFile": "/b",
            "timelineFile": "/t", "pkiDir": "/p", "datastore": datastore}),
        json!({"host": "n1", "entries": [{"kind": "vip", "address": "127.0.0.100", "port": 6443, "protocol": "TCP",
            "target": "127.0.1.1:6443"}]}),
    ];
    let which = rng.random_range(0..files.len());
    let content = changed(rng, corpus, files[which].clone()).to_string();
    [&[which as u8][..], &bent(rng, content)].concat()
}

pub(crate) fn file(input: &[u8]) {
    let Some((which, content)) = input.split_first() else { return };
    let folder = tempfile::tempdir().unwrap_or_else(|error| panic!("there is room for a file: {error}"));
    let put = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap_or_else(|error| panic!("there is room for a file: {error}"));
        path
    };
    let told = match which {
        0 => {
            put("cluster.json");
            local::Folder::record_in(folder.path()).err().map(|error| error.to_string())
        }
        1 => config::HostConfig::load(&put("config.json")).err().map(|error| error.to_string()),
        _ => local::Announcement::parse(content).err(),
    };
    if let Some(told) = told {
        assert!(!told.is_empty());
    }
}

/// A key or a certificate as PEM, a request for one, or something like it.
pub(crate) fn make_pem(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    // Recorded requests for certificates lie in the corpus, as base64 of PEM.
    let requests = corpus.values.iter().filter_map(|value| value["spec"]["request"].as_str());
    let all: Vec<Vec<u8>> = requests.filter_map(decoded).collect();
    let mut text = match all.len() {
        0 => b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n".to_vec(),
        n => all[rng.random_range(0..n)].clone(),
    };
    if rng.random_range(0..3) == 0 {
        let names = ["CERTIFICATE", "PRIVATE KEY", "RSA PRIVATE KEY", "CERTIFICATE REQUEST"];
        let name = names[rng.random_range(0..names.len())];
        let old = String::from_utf8_lossy(&text).replace("CERTIFICATE REQUEST", name);
        text = old.into_bytes();
    }
    let others = text.clone();
    mutate::bytes(rng, text, &others)
}

/// Base64, as objects have it.
fn decoded(text: &str) -> Option<Vec<u8>> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut out, mut bits, mut count) = (Vec::new(), 0_u32, 0);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let six = LETTERS.iter().position(|known| *known == letter)?;
        (bits, count) = (bits << 6 | six as u32, count + 6);
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

pub(crate) fn pem(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let secret = || pki::SecretText::new(text.clone());
    // None of these may be taken with another's key, and all are either read or refused.
    drop(pki::CertificateRequest::from_pem(input));
    drop(pki::Trust::from_pem(text.clone()));
    drop(pki::Identity::from_pem(text.clone(), secret()));
    drop(pki::TokenKey::from_pem(secret()));
    drop(pki::Authority::from_pem(text.clone(), secret()));
    let _ = pki::valid_until(&text);
}

pub(crate) fn grow_kubeconfig(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_kubeconfig(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_manifest(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_manifest(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_file(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_file(rng, corpus);
    crate::grow::bytes(rng, &input)
}

pub(crate) fn grow_pem(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let input = make_pem(rng, corpus);
    crate::grow::bytes(rng, &input)
}
