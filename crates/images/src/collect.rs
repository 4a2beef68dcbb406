//! Which images go when the disk fills up: a decision without a clock and without a disk, by the kubelet's rules
//! (`pkg/kubelet/images/image_gc_manager.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::Digest;

/// When images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thresholds {
    /// From this usage of the disk on, in percent: `imageGCHighThresholdPercent`.
    pub high: u8,
    /// Down to this one: `imageGCLowThresholdPercent`.
    pub low: u8,
    /// No image that is known for less: `imageMinimumGCAge`.
    pub minimum_age: Duration,
    /// Images that nobody has used for so long, whatever the disk's usage: `imageMaximumGCAge`; none if nothing.
    pub maximum_age: Option<Duration>,
    /// Layers of no image, which a pull that failed left for the next one to go on with. A pull whose layers go while it lasts
    /// fetches them again.
    pub orphans: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Thresholds {
            high: 85,
            low: 80,
            minimum_age: Duration::from_secs(2 * 60),
            maximum_age: None,
            orphans: Duration::from_secs(60 * 60),
        }
    }
}

/// How full the disk is that a store lies on, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// What it can hold.
    pub capacity: u64,
    /// What can still be written to it.
    pub available: u64,
}

impl DiskUsage {
    /// In percent, as the kubelet rounds it.
    pub fn percent(&self) -> u8 {
        let free = u128::from(self.available.min(self.capacity)) * 100 / u128::from(self.capacity.max(1));
        // At most 100.
        100 - free as u8
    }
}

/// What a store has, for the decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The layers of each image.
    pub images: BTreeMap<Digest, BTreeSet<Digest>>,
    /// How many bytes each layer has.
    pub layers: BTreeMap<Digest, u64>,
}

/// What is to be removed, and what that frees.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Images, in this order.
    pub images: Vec<Digest>,
    /// Layers of no image.
    pub layers: Vec<Digest>,
    /// What would have to be freed, in bytes.
    pub wanted: u64,
    /// What that frees, in bytes.
    pub freed: u64,
}

impl Verdict {
    /// What the kubelet says in its event `FreeDiskSpaceFailed`, if too little can be freed.
    pub fn complaint(&self) -> Option<String> {
        (self.freed < self.wanted).then(|| {
            format!(
                "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {} bytes \
                 eligible to free.",
                self.wanted, self.freed
            )
        })
    }
}

/// What is remembered of an image or a layer: by the caller's clock, whose beginning doesn't matter.
#[derive(Debug, Clone, Copy)]
struct Known {
    first_seen: Duration,
    last_used: Option<Duration>,
}

/// Decides which images go. It remembers since when it knows each, and when it was last used: so it sees all of them again and again,
/// as often as the kubelet every 5 minutes.
#[derive(Debug, Default)]
pub struct Collector {
    images: BTreeMap<Digest, Known>,
    orphans: BTreeMap<Digest, Known>,
}

impl Collector {
    /// Takes notice of what there is, and which images containers use.
    pub fn observe(&mut self, now: Duration, inventory: &Inventory, in_use: &BTreeSet<Digest>) {
        follow(&mut self.images, inventory.images.keys(), now);
        for (digest, known) in &mut self.images {
            if in_use.contains(digest) {
                known.last_used = Some(now);
            }
        }
        let used: BTreeSet<&Digest> = inventory.images.values().flatten().collect();
        follow(&mut self.orphans, inventory.layers.keys().filter(|layer| !used.contains(layer)), now);
    }

    /// Decides, after [`Collector::observe`] with the same arguments. No image in use goes, and no layer of one.
    pub fn decide(
        &self,
        now: Duration,
        inventory: &Inventory,
        in_use: &BTreeSet<Digest>,
        usage: DiskUsage,
        thresholds: &Thresholds,
    ) -> Verdict {
        let mut verdict = Verdict::default();
        // How many images have each layer: those that stay are taken from.
        let mut users: BTreeMap<&Digest, usize> = BTreeMap::new();
        for layer in inventory.images.values().flatten() {
            *users.entry(layer).or_default() += 1;
        }
        let bytes = |layer: &Digest| inventory.layers.get(layer).copied().unwrap_or_default();
        let age = |known: &Known| now.saturating_sub(known.first_seen);
        for (layer, known) in &self.orphans {
            if age(known) >= thresholds.orphans && !users.contains_key(layer) {
                verdict.freed += bytes(layer);
                verdict.layers.push(layer.clone());
            }
        }
        if usage.percent() >= thresholds.high {
            let free = u128::from(usage.capacity) * u128::from(100 - thresholds.low.min(100)) / 100;
            // Less than the capacity.
            verdict.wanted = (free as u64).saturating_sub(usage.available);
        }
        let mut unused: Vec<(Duration, Duration, &Digest)> = self
            .images
            .iter()
            .filter(|(digest, _)| inventory.images.contains_key(*digest) && !in_use.contains(*digest))
            .map(|(digest, known)| (known.last_used.unwrap_or_default(), known.first_seen, digest))
            .collect();
        unused.sort();
        for (last_used, first_seen, digest) in unused {
            let idle = now.saturating_sub(last_used.max(first_seen));
            let is_old = thresholds.maximum_age.is_some_and(|most| idle > most);
            let is_due =
                verdict.freed < verdict.wanted && now.saturating_sub(first_seen) >= thresholds.minimum_age;
            if !is_old && !is_due {
                continue;
            }
            for layer in &inventory.images[digest] {
                if let Some(count) = users.get_mut(layer) {
                    *count -= 1;
                    if *count == 0 {
                        verdict.freed += bytes(layer);
                    }
                }
            }
            verdict.images.push(digest.clone());
        }
        verdict
    }
}

fn follow<'a>(known: &mut BTreeMap<Digest, Known>, there: impl Iterator<Item = &'a Digest>, now: Duration) {
    let there: BTreeSet<&Digest> = there.collect();
    known.retain(|digest, _| there.contains(digest));
    for digest in there {
        known.entry(digest.clone()).or_insert(Known { first_seen: now, last_used: None });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn digest(name: impl ToString) -> Digest {
        Digest::sha256(name.to_string().as_bytes())
    }

    fn inventory(images: &[(&str, &[&str])], layers: &[(&str, u64)]) -> Inventory {
        let own = |layers: &[&str]| layers.iter().map(digest).collect();
        Inventory {
            images: images.iter().map(|(name, layers)| (digest(name), own(layers))).collect(),
            layers: layers.iter().map(|(name, bytes)| (digest(name), *bytes)).collect(),
        }
    }

    fn three() -> Inventory {
        let images: [(&str, &[&str]); 3] = [("a", &["base", "a1"]), ("b", &["base", "b1"]), ("c", &["c1"])];
        inventory(&images, &[("base", 100), ("a1", 10), ("b1", 10), ("c1", 30), ("left", 5)])
    }

    fn full(available: u64) -> DiskUsage {
        DiskUsage { capacity: 1000, available }
    }

    #[test]
    fn below_the_threshold_nothing_goes() {
        let (inventory, none) = (three(), BTreeSet::new());
        let mut collector = Collector::default();
        collector.observe(Duration::ZERO, &inventory, &none);
        let decide = |now, usage| collector.decide(now, &inventory, &none, usage, &Thresholds::default());
        assert_eq!(decide(30 * MINUTE, full(160)), Verdict::default());
        assert_eq!(decide(MINUTE, full(150)).images, [], "none is old enough");
        assert_eq!(decide(30 * MINUTE, full(150)).wanted, 50);
        let later = decide(60 * MINUTE, full(160));
        assert_eq!((later.layers, later.freed), (vec![digest("left")], 5), "what a pull left goes by itself");
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_shared_frees_nothing_before_the_last() {
        let inventory = three();
        let mut collector = Collector::default();
        collector.observe(Duration::ZERO, &inventory, &[digest("c")].into());
        collector.observe(MINUTE, &inventory, &[digest("a")].into());
        collector.observe(2 * MINUTE, &inventory, &[digest("b")].into());
        let none = BTreeSet::new();
        let decide = |available, in_use| {
            collector.decide(5 * MINUTE, &inventory, in_use, full(available), &Thresholds::default())
        };
        assert_eq!(decide(150, &none).images, ["c", "a", "b"].map(digest), "50 of 30, 10, and 110");
        assert_eq!(decide(150, &none).freed, 150);
        let verdict = decide(150, &[digest("b")].into());
        assert_eq!((verdict.images.as_slice(), verdict.freed), (&["c", "a"].map(digest)[..], 40));
        assert!(verdict.complaint().unwrap().contains("Attempted to free 50 bytes, but only found 40 bytes"));
        assert_eq!(
            collector.decide(5 * MINUTE, &inventory, &none, full(180), &Thresholds::default()).images,
            []
        );
    }

    #[test]
    fn what_nobody_has_used_for_long_goes_whatever_the_disk_says() {
        let inventory = three();
        let mut collector = Collector::default();
        collector.observe(Duration::ZERO, &inventory, &BTreeSet::new());
        collector.observe(5 * MINUTE, &inventory, &[digest("a")].into());
        let thresholds = Thresholds { maximum_age: Some(10 * MINUTE), ..Thresholds::default() };
        let decide = |now, in_use| collector.decide(now, &inventory, in_use, full(900), &thresholds).images;
        let none = BTreeSet::new();
        assert_eq!(decide(10 * MINUTE, &none), []);
        let mut two = ["b", "c"].map(digest);
        two.sort();
        assert_eq!(decide(11 * MINUTE, &none), two);
        let others = [digest("b"), digest("c")].into();
        assert_eq!(decide(99 * MINUTE, &others), [digest("a")]);
    }

    proptest! {
        #[test]
        fn nothing_in_use_goes_and_no_more_than_is_needed(
            images in proptest::collection::vec(proptest::collection::btree_set(0..8_u8, 0..4), 1..8),
            in_use in proptest::collection::btree_set(0..8_usize, 0..4),
            available in 0..200_u64,
        ) {
            let inventory = Inventory {
                images: images.iter().enumerate().map(|(n, layers)| (digest(n), layers.iter().map(digest).collect())).collect(),
                layers: images.iter().flatten().map(|layer| (digest(layer), 20)).collect(),
            };
            let in_use: BTreeSet<Digest> = in_use.iter().map(digest).collect();
            let mut collector = Collector::default();
            collector.observe(Duration::ZERO, &inventory, &in_use);
            let verdict = collector.decide(9 * MINUTE, &inventory, &in_use, full(available), &Thresholds::default());
            prop_assert!(verdict.images.iter().all(|image| !in_use.contains(image)));
            let gone: BTreeSet<&Digest> = verdict.images.iter().collect();
            let stays: BTreeSet<&Digest> =
                inventory.images.iter().filter(|(image, _)| !gone.contains(image)).flat_map(|(_, layers)| layers).collect();
            let freed = inventory.layers.iter().filter(|(layer, _)| !stays.contains(layer)).map(|(_, bytes)| bytes).sum::<u64>();
            prop_assert_eq!(freed, verdict.freed, "what is said to be freed is");
            let enough = verdict.freed >= verdict.wanted;
            let all = inventory.images.keys().filter(|image| !in_use.contains(image)).count() == verdict.images.len();
            prop_assert!(enough || all);
        }
    }
}
