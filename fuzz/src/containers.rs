//! Images of containers: archives, and what registries and Docker's files say.

use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::corpus::Corpus;
use crate::grow::{self, Growing};
use crate::mutate;

const BLOCK: usize = 512;
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn any<'a, T: ?Sized>(rng: &mut StdRng, all: &[&'a T]) -> &'a T {
    all[rng.random_range(0..all.len())]
}

/// A header with its sum, so that it is read further than that.
fn header(rng: &mut StdRng, size: usize) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let name = any(rng, &["a", "a/b", "../a", "/etc/passwd", ".wh.a", "a/.wh..wh..opq", "", "d/"]);
    block[..name.len()].copy_from_slice(name.as_bytes());
    for (at, length) in [(100, 8), (108, 8), (116, 8), (136, 12)] {
        block[at..at + length - 1].fill(b'0');
    }
    block[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    block[156] = any(rng, &[b"0", b"1", b"2", b"5", b"6", b"x", b"L", b"K", b"g", b"S", b"3", b"\0"])[0];
    block[157] = b'a';
    block[257..263].copy_from_slice(b"ustar\0");
    for _ in 0..rng.random_range(0..3) {
        block[rng.random_range(0..BLOCK)] = any(rng, &[b"\0", b"9", b"\x80", b"\xff", b"=", b"/"])[0];
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    block
}

fn entry(rng: &mut StdRng) -> Vec<u8> {
    let content: &[u8] = any(
        rng,
        &[
            &b""[..],
            b"content",
            b"30 SCHILY.xattr.user.a=1\n2=\n3\n",
            b"12 path=a/b\n20 mtime=12.000001\n",
            b"30 size=9223372036854775807\n",
            b"7 a=b\n999999999 c=d\n",
        ],
    );
    let content = if rng.random_range(0..3) == 0 {
        mutate::bytes(rng, content.to_vec(), b"19 uid=1234567890\n")
    } else {
        content.to_vec()
    };
    let mut entry = header(rng, content.len()).to_vec();
    entry.extend(content);
    entry.resize(entry.len().next_multiple_of(BLOCK), 0);
    entry
}

pub(crate) fn make_layer(rng: &mut StdRng, _: &Corpus) -> Vec<u8> {
    let mut archive = Vec::new();
    for _ in 0..rng.random_range(1..8) {
        archive.extend(entry(rng));
    }
    if rng.random_range(0..5) == 0 {
        archive.truncate(rng.random_range(0..=archive.len()));
    }
    archive
}

pub(crate) fn grow_layer(rng: &mut StdRng, _: &Corpus) -> Growing {
    let entry = entry(rng);
    Box::new(move |times| entry.repeat(times))
}

/// An archive is read to its end or refused, and gives no more than it has.
pub(crate) fn layer(input: &[u8]) {
    match images::parts::archive(input) {
        Ok(bytes) => assert!(bytes <= input.len() as u64, "contents of {bytes} bytes in {}", input.len()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn documents() -> [Value; 4] {
    let descriptor = |media_type: &str| json!({"mediaType": media_type, "digest": DIGEST, "size": 0});
    let mut manifest = descriptor("application/vnd.oci.image.manifest.v1+json");
    manifest["platform"] = json!({"os": "linux", "architecture": "amd64", "variant": "v1"});
    [
        json!({"schemaVersion": 2, "config": descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip")]}),
        json!({"schemaVersion": 2, "manifests": [manifest], "annotations": {"a": "b"}}),
        json!({"architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"], "Volumes": {"/v": {}}},
            "rootfs": {"type": "layers", "diff_ids": [DIGEST]}}),
        json!({"auths": {"https://index.docker.io/v1/": {"auth": "dTpw"}, "*.example": {"username": "u"}}}),
    ]
}

/// A byte for what it is, and the text.
pub(crate) fn make_saying(rng: &mut StdRng, corpus: &Corpus) -> Vec<u8> {
    let which = rng.random_range(0..6_u8);
    let text = match which {
        0 => {
            let parts = [
                "a",
                "A",
                "/",
                ":",
                "@",
                ".",
                "-",
                "_",
                "localhost",
                "docker.io",
                "5000",
                "[::1]",
                DIGEST,
                "latest",
            ];
            (0..rng.random_range(0..9)).map(|_| parts[rng.random_range(0..parts.len())]).collect()
        }
        5 => {
            let parts =
                ["Bearer", "Basic", " ", ",", "=", "\"", "\\", "realm=\"https://a/b\"", "scope=x", "service"];
            (0..rng.random_range(0..9)).map(|_| parts[rng.random_range(0..parts.len())]).collect()
        }
        which => {
            let value = documents()[usize::from(which) - 1].clone();
            let other = &corpus.values[rng.random_range(0..corpus.values.len())];
            mutate::tree(rng, value, other).to_string()
        }
    };
    let text = if rng.random_range(0..3) == 0 {
        mutate::bytes(rng, text.clone().into_bytes(), text.as_bytes())
    } else {
        text.into_bytes()
    };
    [vec![which], text].concat()
}

pub(crate) fn grow_saying(rng: &mut StdRng, corpus: &Corpus) -> Growing {
    let saying = make_saying(rng, corpus);
    let grown = grow::bytes(rng, &saying[1..]);
    Box::new(move |times| [vec![saying[0]], grown(times)].concat())
}

pub(crate) fn saying(input: &[u8]) {
    let Some((which, said)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(said);
    let error = match which {
        0 => match images::Reference::parse(&text) {
            Ok(name) => {
                let again = images::Reference::parse(&name.to_string());
                assert_eq!(again.ok(), Some(name), "what was read is written and read again");
                None
            }
            Err(error) => Some(error),
        },
        1 | 2 => images::parts::document(said).err(),
        3 => images::parts::configuration(said).err(),
        4 => {
            let mut keyring = images::Keyring::default();
            let error = keyring.add_docker_config_json(said).err();
            keyring.lookup("docker.io/library/busybox");
            keyring.lookup("registry.example:5000/a");
            error
        }
        _ => {
            images::parts::challenge(&text);
            None
        }
    };
    if let Some(error) = error {
        // An error quotes a part of what it is about.
        assert!(!error.to_string().is_empty() && error.to_string().len() < 5000, "{error}");
    }
}
