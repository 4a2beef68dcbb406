//! Settings that a cluster's hosts share, from one file.

use std::path::{Path, PathBuf};

use config::{AddressRange, Audit, Dns, Eviction, Ports, Scheduling, Shutdown, Timeouts, TokenWebhook};
use serde::{Deserialize, Serialize};

/// Why a file of settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It can't be read.
    #[error("can't read the settings {path}: {why}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// It isn't YAML.
    #[error("{path} holds no settings: {why}; write it as YAML or JSON")]
    Text {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        why: values::YamlError,
    },
    /// A field is unknown, twice there, or not what it has to be.
    #[error("{path} holds no settings: {why}; `holdfast config --defaults` prints all that there are")]
    Field {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// What a host's configuration says beside who the host is and where it lives: the same on all hosts of a cluster, but for the
/// audit, the webhook for tokens, the file with the keys of what is encrypted, the file about registries, the folder of static pods and the runtime of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Settings {
    /// The addresses that Services of type LoadBalancer get.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub load_balancer_cidrs: Vec<AddressRange>,
    /// The ports on which hosts listen.
    pub ports: Ports,
    /// How long what may take.
    pub timeouts: Timeouts,
    /// How pods are placed.
    pub scheduling: Scheduling,
    /// How names are answered for.
    pub dns: Dns,
    /// When pods are evicted.
    pub eviction: Eviction,
    /// How pods end as a host shuts down.
    pub shutdown: Shutdown,
    /// Where the audit records what requests did, by files of this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<Audit>,
    /// Who is asked about tokens that the cluster didn't make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_webhook: Option<TokenWebhook>,
    /// The file about registries of images, on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registries_file: Option<PathBuf>,
    /// The folder with the manifests of the pods that this host runs by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_pods: Option<PathBuf>,
    /// The runtime of others that runs this host's containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<String>,
    /// The file with the keys of what is encrypted wherever it lies, on this host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_file: Option<PathBuf>,
}

impl Settings {
    /// Reads them from a file.
    ///
    /// # Errors
    /// [`Error`], with the file and what to do.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|why| Error::Read { path: path.into(), why })?;
        let read = values::yaml_and_duplicates(&text);
        let (value, twice) = read.map_err(|why| Error::Text { path: path.into(), why })?;
        let wrong = |why: String| Error::Field { path: path.into(), why };
        if let Some(twice) = twice.into_iter().next() {
            return Err(wrong(twice));
        }
        serde_json::from_value(value).map_err(|why| wrong(why.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_settings() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings.yaml");
        std::fs::write(&path, config::DEFAULTS).unwrap();
        assert_eq!(Settings::load(&path).unwrap(), Settings::default());
        // What stands behind a # without a space is a setting, too: an example.
        let examples = |line: &str| {
            let (indent, rest) = line.split_once('#').filter(|(indent, _)| indent.trim().is_empty())?;
            let is_prose = rest.starts_with(' ') && !rest.starts_with("  ");
            (!is_prose).then(|| format!("{indent}{rest}\n"))
        };
        let all: String = config::DEFAULTS
            .lines()
            .map(|line| examples(line).unwrap_or_else(|| format!("{line}\n")))
            .collect();
        std::fs::write(&path, all).unwrap();
        // Each field by its name: the defaults must name a new one as well.
        let Settings {
            load_balancer_cidrs,
            ports,
            timeouts,
            scheduling,
            dns,
            eviction,
            shutdown,
            registries_file,
            static_pods,
            runtime,
            audit,
            token_webhook,
            encryption_file,
        } = Settings::load(&path).unwrap();
        assert_eq!((ports, timeouts, scheduling), Default::default(), "their fields are all told");
        assert!(!load_balancer_cidrs.is_empty() && !dns.upstream.is_empty());
        assert!(!eviction.soft.is_empty() && !eviction.soft_grace_period.is_empty());
        assert!(!eviction.minimum_reclaim.is_empty() && !shutdown.grace_period_critical_pods.is_zero());
        assert!(registries_file.is_some() && static_pods.is_some() && runtime.is_some());
        assert!(
            audit.is_some_and(|audit| audit.log.is_some() && audit.webhook.is_some())
                && encryption_file.is_some()
        );
        assert!(token_webhook.is_some());
        std::fs::write(&path, "ports: {api: 7443}\n").unwrap();
        assert_eq!(Settings::load(&path).unwrap().ports.api, 7443);
        for wrong in ["name: n1\n", "ports: {api: x}\n", "ports: {}\nports: {}\n", "a: [\n"] {
            std::fs::write(&path, wrong).unwrap();
            let said = Settings::load(&path).unwrap_err().to_string();
            assert!(said.contains(path.to_str().unwrap()), "{said}");
        }
    }
}
