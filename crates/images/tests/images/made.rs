//! Images that the tests make.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use images::Digest;
use serde_json::{Value, json};

/// An image: its configuration's own part, and its layers as archives.
#[derive(Clone)]
pub struct Made {
    pub config: Value,
    pub layers: Vec<Vec<u8>>,
}

pub type Files = BTreeMap<String, Vec<u8>>;

/// A layer of files.
pub fn layer(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1000);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn made(layers: &[Vec<u8>]) -> Made {
    Made { config: json!({"Cmd": ["/bin/sh"], "Env": ["A=b"], "User": "7"}), layers: layers.to_vec() }
}

pub fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn architecture() -> String {
    images::Platform::host().architecture
}

impl Made {
    pub fn configuration(&self) -> Vec<u8> {
        let diff_ids: Vec<_> = self.layers.iter().map(|layer| Digest::sha256(layer)).collect();
        json!({"architecture": architecture(), "os": "linux", "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        .to_string()
        .into_bytes()
    }

    /// What `docker save` writes, up to version 24.
    pub fn saved(&self, tags: &[&str]) -> Files {
        let config = self.configuration();
        let mut files = Files::new();
        let mut names = Vec::new();
        for (n, layer) in self.layers.iter().enumerate() {
            names.push(format!("{n}/layer.tar"));
            files.insert(format!("{n}/layer.tar"), layer.clone());
        }
        let name = format!("{}.json", Digest::sha256(&config).hex());
        let manifest = json!([{"Config": name, "RepoTags": tags, "Layers": names}]);
        files.insert(name, config);
        files.insert("manifest.json".into(), manifest.to_string().into_bytes());
        files
    }

    /// Manifest, configuration and layers as blobs; and the manifest's descriptor.
    pub fn blobs(&self, compress: fn(&[u8]) -> Vec<u8>) -> (BTreeMap<Digest, Vec<u8>>, Value) {
        let mut blobs = BTreeMap::new();
        let mut keep = |media_type: &str, content: Vec<u8>| {
            let digest = Digest::sha256(&content);
            let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
            blobs.insert(digest, content);
            descriptor
        };
        let mut layers = Vec::new();
        for layer in &self.layers {
            layers.push(keep("application/vnd.oci.image.layer.v1.tar+gzip", compress(layer)));
        }
        let config = keep("application/vnd.oci.image.config.v1+json", self.configuration());
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest =
            json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers});
        let descriptor = keep(media_type, manifest.to_string().into_bytes());
        (blobs, descriptor)
    }

    /// OCI's layout, under a name.
    pub fn layout(&self, name: &str, compress: fn(&[u8]) -> Vec<u8>) -> Files {
        let (blobs, mut descriptor) = self.blobs(compress);
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
        let mut files: Files = blobs
            .into_iter()
            .map(|(digest, content)| (format!("blobs/sha256/{}", digest.hex()), content))
            .collect();
        files.insert("index.json".into(), index.to_string().into_bytes());
        files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
        files
    }
}

pub fn archive(files: &Files) -> Vec<u8> {
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    layer(&files)
}

pub fn write(files: &Files, folder: &Path) {
    for (name, content) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}
