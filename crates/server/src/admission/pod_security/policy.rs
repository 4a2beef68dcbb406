//! What the labels of a namespace say: a level, as of a version, for each of three modes.

use std::collections::BTreeMap;
use std::fmt;

use machinery::Cause;
use serde_json::json;

/// The newest version that a policy may name: that of the API which is served.
const NEWEST_MINOR: u32 = 36;

/// How much is forbidden, from nothing to most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    #[default]
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }
}

/// As of which version: the minor of `v1.MINOR`, or the newest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Version(Option<u32>);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version(None));
        }
        let minor = text.strip_prefix("v1.")?;
        let plain = minor.bytes().all(|b| b.is_ascii_digit()) && (minor == "0" || !minor.starts_with('0'));
        minor.parse().ok().filter(|_| plain).map(|minor| Version(Some(minor)))
    }

    /// Whether what was introduced with `v1.MINOR` counts.
    pub(super) fn is_since(self, minor: u32) -> bool {
        self.minor() >= minor
    }

    fn minor(self) -> u32 {
        self.0.unwrap_or(NEWEST_MINOR)
    }

    #[cfg(test)]
    pub(super) fn v1(minor: u32) -> Self {
        Version(Some(minor))
    }
}

/// A level as of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) level: Level,
    pub(super) version: Version,
}

impl Policy {
    /// Whether it may forbid what the other doesn't.
    pub(super) fn may_be_stricter_than(&self, other: &Policy) -> bool {
        self.level > other.level || (self.level == other.level && self.version != other.version)
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version.0 {
            Some(minor) => write!(f, "{level}:v1.{minor}"),
            None => write!(f, "{level}:latest"),
        }
    }
}

/// A label that says something of pods.
#[derive(Debug, Clone, Copy)]
pub(super) enum Label {
    Level(&'static str),
    Version(&'static str),
}

/// All labels of that kind.
pub(super) const LABELS: [Label; 6] = [
    Label::Level("pod-security.kubernetes.io/enforce"),
    Label::Version("pod-security.kubernetes.io/enforce-version"),
    Label::Level("pod-security.kubernetes.io/audit"),
    Label::Version("pod-security.kubernetes.io/audit-version"),
    Label::Level("pod-security.kubernetes.io/warn"),
    Label::Version("pod-security.kubernetes.io/warn-version"),
];

impl Label {
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            Label::Level(name) | Label::Version(name) => name,
        }
    }

    /// What is wrong with a value of it.
    pub(super) fn fault(&self, value: &str) -> Option<Cause> {
        let why = match self {
            Label::Level(_) if Level::parse(value).is_none() => {
                "must be one of privileged, baseline, restricted"
            }
            Label::Version(_) if Version::parse(value).is_none() => "must be \"latest\" or \"v1.x\"",
            _ => return None,
        };
        Some(Cause::invalid(format!("metadata.labels[{}]", self.as_str()), &json!(value), why))
    }
}

/// What a namespace says.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Policies {
    pub(super) enforce: Policy,
    pub(super) audit: Policy,
    pub(super) warn: Policy,
}

impl Policies {
    pub(super) fn of(labels: &BTreeMap<&str, &str>) -> Self {
        let label = |name: &str| labels.get(format!("pod-security.kubernetes.io/{name}").as_str()).copied();
        // A label that means nothing enforces the most that there is, and warns of nothing.
        let version = |name: &str| label(name).and_then(Version::parse).unwrap_or_default();
        let enforce = Policy {
            level: label("enforce")
                .map_or(Level::Privileged, |text| Level::parse(text).unwrap_or(Level::Restricted)),
            version: version("enforce-version"),
        };
        let told = |level: &str, version_label: &str| {
            let level = Level::parse(label(level)?).unwrap_or_default();
            Some(Policy { level, version: version(version_label) })
        };
        let warn = told("warn", "warn-version").unwrap_or(enforce);
        let audit = told("audit", "audit-version").unwrap_or_default();
        Policies { enforce, audit, warn }
    }
}
