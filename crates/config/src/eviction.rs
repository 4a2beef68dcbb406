//! When a host's pods are evicted, in the words of a kubelet's configuration (`evictionHard` and its siblings).

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

use crate::Findings;

/// The section `eviction` of a host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Eviction {
    /// Below these, pods go at once.
    pub hard: Bounds,
    /// Below these, they go once it has been so for a while.
    pub soft: Bounds,
    /// For how long.
    pub soft_grace_period: BTreeMap<Signal, Grace>,
    /// How much more must be there again until it is enough.
    pub minimum_reclaim: Bounds,
    /// How long a pod has at most to end that goes for the sake of `soft`.
    #[serde(with = "humantime_serde")]
    pub max_pod_grace_period: Duration,
    /// For how long a pressure is reported after it was seen last: so that it doesn't come and go.
    #[serde(with = "humantime_serde")]
    pub pressure_transition_period: Duration,
}

/// How little of what.
pub type Bounds = BTreeMap<Signal, Bound>;

/// What can run short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Signal {
    /// Memory.
    #[serde(rename = "memory.available")]
    Memory,
    /// Room on the disk of the pods.
    #[serde(rename = "nodefs.available")]
    Nodefs,
    /// Inodes there.
    #[serde(rename = "nodefs.inodesFree")]
    NodefsInodes,
    /// Room on the disk of the images.
    #[serde(rename = "imagefs.available")]
    Imagefs,
    /// Inodes there.
    #[serde(rename = "imagefs.inodesFree")]
    ImagefsInodes,
    /// Processes that can still be made.
    #[serde(rename = "pid.available")]
    Pid,
}

/// A time, like `1m 30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Grace(#[serde(with = "humantime_serde")] pub Duration);

/// An amount like `100Mi`, or a part like `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// Bytes, inodes or processes.
    Amount(u64),
    /// A part of what there is, in hundredths of a percent.
    Percent(u16),
}

impl Default for Eviction {
    /// The kubelet's (`DefaultEvictionHard`, `DefaultEvictionPressureTransitionPeriod`).
    fn default() -> Self {
        let hard = [
            (Signal::Memory, Bound::Amount(100 << 20)),
            (Signal::Nodefs, Bound::Percent(1000)),
            (Signal::NodefsInodes, Bound::Percent(500)),
            (Signal::Imagefs, Bound::Percent(1500)),
            (Signal::ImagefsInodes, Bound::Percent(500)),
        ];
        Eviction {
            hard: hard.into(),
            soft: Bounds::new(),
            soft_grace_period: BTreeMap::new(),
            minimum_reclaim: Bounds::new(),
            max_pod_grace_period: Duration::ZERO,
            pressure_transition_period: Duration::from_secs(5 * 60),
        }
    }
}

impl Eviction {
    pub(crate) fn is_default(&self) -> bool {
        *self == Eviction::default()
    }

    pub(crate) fn check(&self, findings: &mut Findings) {
        for signal in self.soft.keys().filter(|signal| !self.soft_grace_period.contains_key(signal)) {
            findings.problem(
                "eviction.softGracePeriod",
                format!("{} of eviction.soft has none", signal.name()),
                "say for how long it must be so, like 1m 30s",
            );
        }
        for signal in self.soft_grace_period.keys().filter(|signal| !self.soft.contains_key(signal)) {
            findings.problem(
                "eviction.softGracePeriod",
                format!("{} is not in eviction.soft", signal.name()),
                "take it away, or say below what it counts",
            );
        }
    }
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Memory => "memory.available",
            Signal::Nodefs => "nodefs.available",
            Signal::NodefsInodes => "nodefs.inodesFree",
            Signal::Imagefs => "imagefs.available",
            Signal::ImagefsInodes => "imagefs.inodesFree",
            Signal::Pid => "pid.available",
        }
    }
}

/// The units of amounts.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

impl FromStr for Bound {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} is neither an amount like 100Mi nor a part like 10%");
        if let Some(percent) = text.strip_suffix('%') {
            let percent: f64 = percent.parse().map_err(|_| wrong())?;
            // At most 10,000, and not negative.
            let hundredths = (percent * 100.0).round() as u16;
            return if (0.0..=100.0).contains(&percent) {
                Ok(Bound::Percent(hundredths))
            } else {
                Err(wrong())
            };
        }
        let unit = UNITS.iter().find_map(|(name, times)| Some((text.strip_suffix(name)?, *times)));
        let (number, times) = unit.unwrap_or((text, 1));
        let number: u64 = number.parse().map_err(|_| wrong())?;
        number.checked_mul(times).map(Bound::Amount).ok_or_else(wrong)
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Percent(hundredths) => write!(f, "{}%", f64::from(*hundredths) / 100.0),
            Bound::Amount(amount) => {
                let binary = UNITS.iter().take(4).rev();
                match binary.into_iter().find(|(_, times)| *amount > 0 && amount % times == 0) {
                    Some((name, times)) => write!(f, "{}{name}", amount / times),
                    None => write!(f, "{amount}"),
                }
            }
        }
    }
}

impl Serialize for Bound {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_kubelets_words_are_understood() {
        let said = json!({"hard": {"memory.available": "1Gi", "nodefs.inodesFree": "5%"}, "soft": {"pid.available": "1k"},
            "softGracePeriod": {"pid.available": "1m 30s"}, "minimumReclaim": {"nodefs.available": "500M"},
            "maxPodGracePeriod": "30s", "pressureTransitionPeriod": "1m"});
        let eviction: Eviction = serde_json::from_value(said).unwrap();
        assert_eq!(eviction.hard[&Signal::Memory], Bound::Amount(1 << 30));
        assert_eq!(eviction.hard.len(), 2, "what is left out doesn't count, as with the kubelet");
        assert_eq!(eviction.soft_grace_period[&Signal::Pid], Grace(Duration::from_secs(90)));
        assert_eq!(eviction.minimum_reclaim[&Signal::Nodefs], Bound::Amount(500_000_000));
        let again: Eviction = serde_json::from_value(serde_json::to_value(&eviction).unwrap()).unwrap();
        assert_eq!(again, eviction);
        assert_eq!(serde_json::from_value::<Eviction>(json!({})).unwrap(), Eviction::default());
        assert_eq!(serde_json::to_value(Eviction::default()).unwrap()["hard"]["memory.available"], "100Mi");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        assert_eq!("12.5%".parse::<Bound>().unwrap().to_string(), "12.5%");
        for text in ["", "10", "-1", "101%", "-1%", "x%", "1.5Mi", "Mi", "99999999Ti"] {
            assert_eq!(text.parse::<Bound>().is_ok(), text == "10", "{text}");
        }
        assert!(serde_json::from_value::<Eviction>(json!({"hard": {"memory": "1Gi"}})).is_err());
        let grace = [(Signal::Nodefs, Grace(Duration::ZERO))].into();
        let soft = [(Signal::Memory, Bound::Percent(1000))].into();
        let eviction = Eviction { soft, soft_grace_period: grace, ..Eviction::default() };
        let mut findings = Findings::default();
        eviction.check(&mut findings);
        assert_eq!(findings.problems.len(), 2, "{findings:?}");
    }
}
