//! Manifests and indexes: of what an image consists, by OCI's image specification and Docker's of the second schema.

use serde::{Deserialize, Serialize};

use crate::config::or_default;
use crate::{Digest, Error, Platform};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_OLD: [&str; 2] = [
    "application/vnd.docker.distribution.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
];
const LAYERS: [&str; 10] = [
    OCI_LAYER,
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];

/// What a manifest, an index or a configuration may have: containerd reads no larger ones either
/// (`remotes/docker`, `MaxManifestSize`, 4 MiB; 8 MiB for what it reads into memory).
pub(crate) const LARGEST: u64 = 8 << 20;

/// Where annotations of an index name an image: whole, or its tag alone.
const NAME_WHOLE: &str = "io.containerd.image.name";
const NAME: &str = "org.opencontainers.image.ref.name";

/// Content by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default, skip_serializing, deserialize_with = "or_default")]
    platform: Option<Platform>,
    #[serde(default, skip_serializing, deserialize_with = "or_default")]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let (platform, annotations) = (None, Default::default());
        Descriptor { media_type: media_type.to_owned(), digest, size, platform, annotations }
    }

    /// What an index calls the image.
    pub(crate) fn name(&self) -> Option<&str> {
        let named = |key| self.annotations.get(key).map(String::as_str).filter(|name| !name.is_empty());
        named(NAME_WHOLE).or_else(|| named(NAME))
    }
}

/// The manifest of one image for one platform.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    schema_version: u32,
    media_type: String,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
}

impl Manifest {
    /// A manifest for an image that came without one.
    pub(crate) fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Manifest { schema_version: 2, media_type: OCI_MANIFEST.to_owned(), config, layers }
    }
}

/// A manifest, or manifests to choose from.
#[derive(Debug)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default, deserialize_with = "or_default")]
    media_type: String,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

impl Document {
    /// Reads a document; `told` is the media type that it came with, `what` names it in errors.
    pub(crate) fn read(bytes: &[u8], told: &str, what: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::manifest(what, why);
        let raw: Raw = serde_json::from_slice(bytes).map_err(|why| wrong(why.to_string()))?;
        let known = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST];
        let media_type = if raw.media_type.is_empty() { told } else { &raw.media_type };
        if raw.schema_version == 1 || DOCKER_OLD.contains(&media_type) {
            return Err(wrong("Docker's schema 1 is no longer supported; push the image again".into()));
        }
        if !media_type.is_empty() && !known.contains(&media_type) && media_type.starts_with("application/vnd")
        {
            return Err(wrong(format!("{media_type:?} is no image")));
        }
        match (raw.config, raw.layers, raw.manifests) {
            // Who may say "it is an index" and "it is a manifest" of one document tells each reader another thing: CVE-2021-41190.
            (Some(_), _, Some(_)) | (_, Some(_), Some(_)) => {
                Err(wrong("it has layers and manifests, and may have one of them only".into()))
            }
            (None, None, Some(manifests)) => Ok(Document::Index(manifests)),
            (Some(config), layers, None) => {
                let manifest = Manifest {
                    schema_version: 2,
                    media_type: media_type.to_owned(),
                    config,
                    layers: layers.unwrap_or_default(),
                };
                check_types(&manifest).map_err(wrong)?;
                Ok(Document::Manifest(manifest))
            }
            (None, _, None) => Err(wrong("it is neither a manifest nor an index".into())),
        }
    }
}

fn check_types(manifest: &Manifest) -> Result<(), String> {
    let config = manifest.config.media_type.as_str();
    if ![OCI_CONFIG, DOCKER_CONFIG, ""].contains(&config) {
        return Err(format!("its configuration is {config:?}: it is no container image"));
    }
    if let Some(layer) = manifest.layers.iter().find(|layer| !LAYERS.contains(&layer.media_type.as_str())) {
        return Err(format!("layer {}: unsupported media type {:?}", layer.digest, layer.media_type));
    }
    Ok(())
}

/// The manifests of an index that this machine may use, best first: the kind is tried of one that says no platform.
pub(crate) fn choose<'a>(
    manifests: &'a [Descriptor],
    platform: &Platform,
    what: &str,
) -> Result<&'a Descriptor, Error> {
    let is_known =
        |media_type: &str| [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, ""].contains(&media_type);
    let rated = manifests.iter().filter(|each| is_known(&each.media_type)).filter_map(|each| {
        let rate = match &each.platform {
            Some(its) => platform.runs(its)?,
            // Not before one that says that it fits.
            None => u32::MAX,
        };
        Some((rate, each))
    });
    rated.min_by_key(|(rate, _)| *rate).map(|(_, each)| each).ok_or_else(|| {
        let offered = manifests.iter().filter_map(|each| each.platform.as_ref()).map(Platform::to_string);
        let offered = offered.take(20).collect::<Vec<_>>().join(", ");
        Error::NoPlatform {
            what: what.to_owned(),
            platform: platform.to_string(),
            offered: if offered.is_empty() { "nothing".into() } else { offered },
        }
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(media_type: &str, content: &str) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": Digest::sha256(content.as_bytes()), "size": content.len()})
    }

    fn read(value: &serde_json::Value) -> Result<Document, String> {
        Document::read(value.to_string().as_bytes(), "", "it").map_err(|error| error.to_string())
    }

    #[test]
    fn manifests_of_both_kinds_are_read_and_others_refused() {
        let layer = descriptor(LAYERS[7], "layer");
        let manifest = json!({"schemaVersion": 2, "mediaType": DOCKER_MANIFEST, "config": descriptor(DOCKER_CONFIG, "c"),
            "layers": [layer]});
        let Ok(Document::Manifest(read_)) = read(&manifest) else { panic!() };
        assert_eq!((read_.layers.len(), read_.layers[0].size), (1, 5));
        for (change, why) in [
            (json!({"schemaVersion": 1}), "schema 1"),
            (json!({"mediaType": DOCKER_OLD[1]}), "schema 1"),
            (json!({"mediaType": "application/vnd.wasm.config"}), "is no image"),
            (json!({"manifests": []}), "may have one of them only"),
            (
                json!({"config": descriptor("application/vnd.cncf.helm.config.v1+json", "c")}),
                "no container image",
            ),
            (
                json!({"layers": [descriptor("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "l")]}),
                "unsupported",
            ),
            (json!({"config": {"digest": "sha256:/etc/passwd", "size": 1}}), "length"),
            (json!({"layers": [{"mediaType": OCI_LAYER, "digest": Digest::sha256(b""), "size": -1}]}), "-1"),
            (json!({"config": null, "layers": null}), "neither"),
        ] {
            let mut changed = manifest.clone();
            for (key, value) in change.as_object().unwrap() {
                changed[key] = value.clone();
            }
            let error = read(&changed).unwrap_err();
            assert!(error.contains(why), "{changed}: {error}");
        }
        assert!(read(&json!([])).is_err() && Document::read(b"{", "", "it").is_err());
    }

    #[test]
    fn an_index_gives_what_fits_this_machine() {
        let of = |content: &str, platform: serde_json::Value| {
            let mut descriptor = descriptor(OCI_MANIFEST, content);
            descriptor["platform"] = platform;
            descriptor
        };
        let index = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [
            of("any", json!(null)),
            of("attestation", json!({"os": "unknown", "architecture": "unknown"})),
            of("v6", json!({"os": "linux", "architecture": "arm", "variant": "v6"})),
            of("v7", json!({"os": "linux", "architecture": "arm", "variant": "v7"})),
            of("amd64", json!({"os": "linux", "architecture": "amd64"})),
        ]});
        let Ok(Document::Index(mut manifests)) = read(&index) else { panic!() };
        let platform = |architecture: &str, variant: &str| Platform {
            os: "linux".into(),
            architecture: architecture.into(),
            variant: variant.into(),
        };
        let chosen = |manifests: &[Descriptor], platform: &Platform| {
            choose(manifests, platform, "it")
                .map(|each| each.digest.clone())
                .map_err(|error| error.to_string())
        };
        for (architecture, variant, content) in
            [("amd64", "", "amd64"), ("arm", "v7", "v7"), ("arm", "v6", "v6"), ("riscv64", "", "any")]
        {
            assert_eq!(
                chosen(&manifests, &platform(architecture, variant)),
                Ok(Digest::sha256(content.as_bytes()))
            );
        }
        manifests.remove(0);
        let error = chosen(&manifests, &platform("riscv64", "")).unwrap_err();
        assert!(
            error.contains("no match for platform linux/riscv64") && error.contains("linux/arm/v6"),
            "{error}"
        );
    }
}
