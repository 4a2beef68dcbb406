//! Which of a pod's images a node has already.
//!
//! Follows `plugins/imagelocality` upstream, except that an image counts in full however few nodes have it: upstream scales it
//! down so that not all replicas of an image's first pod run beside it, and here replicas are spread before images count.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Deserializer};

const MIB: u64 = 1024 * 1024;
/// Fewer bytes than that make no difference (`minThreshold` upstream).
const LEAST: u64 = 23 * MIB;
/// More bytes than that a container make no further difference (`maxContainerThreshold` upstream).
const MOST_A_CONTAINER: u64 = 1000 * MIB;

/// An image by a hash of its name: nodes have dozens, with long names, and a mistake costs a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Image(u64);

impl Image {
    /// The image of a name, which without tag and digest is the one of the tag `latest`.
    pub fn named(name: &str) -> Self {
        // A colon before the last slash is a registry's port.
        let has_tag = name.rsplit('/').next().is_some_and(|last| last.contains(':'));
        // Always the same keys: nodes are compared with what they were before.
        let mut hasher = DefaultHasher::new();
        if has_tag {
            name.hash(&mut hasher)
        } else {
            format!("{name}:latest").hash(&mut hasher)
        }
        Image(hasher.finish())
    }
}

/// The images of a node with their sizes in bytes, in their order.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Images(Box<[(Image, u64)]>);

impl Images {
    /// How much of some containers' images is there, in thousandths.
    pub fn locality(&self, wanted: &[Image]) -> u64 {
        if self.0.is_empty() {
            return 0;
        }
        let size = |image: &Image| {
            let at = self.0.binary_search_by_key(image, |(image, _)| *image).ok()?;
            self.0.get(at).map(|(_, size)| *size)
        };
        let bytes = wanted.iter().filter_map(size).fold(0, u64::saturating_add);
        let most = MOST_A_CONTAINER * wanted.len().max(1) as u64;
        (bytes.clamp(LEAST, most) - LEAST).saturating_mul(1000) / (most - LEAST)
    }
}

impl<'de> Deserialize<'de> for Images {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Reported {
            names: Option<Vec<String>>,
            size_bytes: i64,
        }
        let reported = Option::<Vec<Reported>>::deserialize(from)?.unwrap_or_default();
        let named = reported.iter().flat_map(|image| {
            image
                .names
                .iter()
                .flatten()
                .map(|name| (Image::named(name), image.size_bytes.max(0).unsigned_abs()))
        });
        let mut images: Vec<_> = named.collect();
        images.sort_unstable();
        images.dedup_by_key(|(image, _)| *image);
        Ok(Images(images.into_boxed_slice()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_image_counts_by_its_size_under_any_of_its_names() {
        let images: Images = serde_json::from_value(json!([
            {"names": ["r:5000/a:latest", "r:5000/a@sha256:1"], "sizeBytes": 1000 * MIB},
            {"names": ["small:1"], "sizeBytes": 23 * MIB},
            {"names": null},
            {"names": ["nonsense:1"], "sizeBytes": -1},
        ]))
        .unwrap();
        for (wanted, expected) in [
            (vec!["r:5000/a"], 1000),
            (vec!["r:5000/a@sha256:1"], 1000),
            (vec!["r:5000/a", "none:1"], 494),
            (vec!["small:1"], 0),
            (vec!["small"], 0),
            (vec!["nonsense:1"], 0),
            (vec![], 0),
        ] {
            let named: Vec<_> = wanted.iter().map(|name| Image::named(name)).collect();
            assert_eq!(images.locality(&named), expected, "{wanted:?}");
        }
        let none: Images = serde_json::from_value(json!(null)).unwrap();
        assert_eq!(none.locality(&[Image::named("a")]), 0);
    }
}
