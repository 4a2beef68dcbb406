//! Which machine an image is for.

use std::fmt;

use serde::Deserialize;

use crate::config::or_default;

/// An operating system on a kind of processor, in Go's words, as images tell it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    #[serde(default, deserialize_with = "or_default")]
    pub os: String,
    /// Such as `amd64` or `arm64`.
    #[serde(default, deserialize_with = "or_default")]
    pub architecture: String,
    /// The processor's version where that matters, such as `v7`; often empty.
    #[serde(default, deserialize_with = "or_default")]
    pub variant: String,
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", ""),
            "x86" => ("386", ""),
            "aarch64" => ("arm64", "v8"),
            "arm" => ("arm", "v7"),
            "powerpc64" => ("ppc64le", ""),
            other => (other, ""),
        };
        Platform { os: "linux".into(), architecture: architecture.into(), variant: variant.into() }
    }

    /// How well this machine runs what is for another one: the lower the better, nothing if it can't.
    pub(crate) fn runs(&self, image: &Platform) -> Option<u32> {
        if image.os != self.os || image.architecture != self.architecture {
            return None;
        }
        let version = |platform: &Platform| match (platform.variant.as_str(), platform.architecture.as_str())
        {
            // What these mean if they say nothing: containerd's `platforms.Normalize`.
            ("", "arm64") => Some(8),
            ("", "arm") => Some(7),
            ("", _) => Some(1),
            (variant, _) => variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok()),
        };
        // An older version runs, a newer one may not.
        version(self)?.checked_sub(version(image)?)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_runs_its_own_and_older_versions() {
        let platform = |text: &str| {
            let mut parts = text.split('/').map(str::to_owned);
            let mut next = || parts.next().unwrap_or_default();
            Platform { os: next(), architecture: next(), variant: next() }
        };
        for (machine, image, how) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64", "unknown/unknown", None),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm/v7", "linux/arm", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v7", "linux/arm/v8", None),
            ("linux/arm/v7", "linux/arm/soft", None),
        ] {
            assert_eq!(platform(machine).runs(&platform(image)), how, "{machine} {image}");
        }
        assert_eq!(Platform::host().runs(&Platform::host()), Some(0));
    }
}
