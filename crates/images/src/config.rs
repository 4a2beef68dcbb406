//! What an image says about how it is run.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::{Digest, Error, Platform};

/// How the processes of an image are started, as its maker wished: OCI's image configuration, and Docker's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    /// Variables as `NAME=value`.
    #[serde(deserialize_with = "or_default")]
    pub env: Vec<String>,
    /// What is started; `cmd` are its arguments then.
    #[serde(deserialize_with = "or_default")]
    pub entrypoint: Vec<String>,
    /// What is started, or the arguments of `entrypoint`.
    #[serde(deserialize_with = "or_default")]
    pub cmd: Vec<String>,
    /// As whom: `user`, `uid`, `user:group`, `uid:gid`, `uid:group` or `user:gid`; root if empty.
    #[serde(deserialize_with = "or_default")]
    pub user: String,
    /// Where; `/` if empty.
    #[serde(deserialize_with = "or_default")]
    pub working_dir: String,
    /// The signal that asks it to end: a name such as `SIGQUIT`, or a number.
    pub stop_signal: Option<String>,
    /// Folders that are a volume of each container.
    #[serde(deserialize_with = "keys")]
    pub volumes: Vec<String>,
    /// Ports that it listens on, such as `80/tcp`.
    #[serde(deserialize_with = "keys")]
    pub exposed_ports: Vec<String>,
    /// What its maker says about it.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
}

impl Config {
    /// What a container starts whose pod says `command` and `args`, by Kubernetes' rules: a command replaces the entry point
    /// and the image's arguments, arguments replace the image's arguments. Empty if nobody says anything.
    pub fn command(&self, command: &[String], args: &[String]) -> Vec<String> {
        match (command.is_empty(), args.is_empty()) {
            (false, _) => [command, args].concat(),
            (true, false) => [&self.entrypoint, args].concat(),
            (true, true) => [&self.entrypoint[..], &self.cmd].concat(),
        }
    }
}

/// The configuration of an image as it is stored.
#[derive(Debug, Deserialize)]
pub(crate) struct Stored {
    #[serde(default, deserialize_with = "or_default")]
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    os: String,
    #[serde(default, deserialize_with = "or_default")]
    variant: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: Config,
    rootfs: Rootfs,
}

#[derive(Debug, Deserialize)]
struct Rootfs {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<Digest>,
}

/// The kernel stacks no more: `OVL_MAX_STACK`.
const MOST_LAYERS: usize = 500;

impl Stored {
    /// Reads a configuration; `what` names it in errors.
    pub(crate) fn read(bytes: &[u8], what: &str) -> Result<Self, Error> {
        let stored: Stored =
            serde_json::from_slice(bytes).map_err(|why| Error::manifest(what, why.to_string()))?;
        let count = stored.rootfs.diff_ids.len();
        if count > MOST_LAYERS {
            return Err(Error::manifest(
                what,
                format!("it has {count} layers, more than the {MOST_LAYERS} that overlayfs can stack"),
            ));
        }
        Ok(stored)
    }

    /// The digests of its layers as archives that aren't compressed, lowest first.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }

    /// What it is for; nothing if it doesn't say.
    pub(crate) fn platform(&self) -> Option<Platform> {
        (!self.architecture.is_empty() && !self.os.is_empty()).then(|| Platform {
            os: self.os.clone(),
            architecture: self.architecture.clone(),
            variant: self.variant.clone(),
        })
    }
}

/// `null` stands for what isn't there: Go writes empty lists and maps so.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    source: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(source)?.unwrap_or_default())
}

/// The keys of a map whose values say nothing.
fn keys<'de, D: Deserializer<'de>>(source: D) -> Result<Vec<String>, D::Error> {
    let map: Option<BTreeMap<String, serde::de::IgnoredAny>> = Option::deserialize(source)?;
    Ok(map.unwrap_or_default().into_keys().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_configuration_is_read() {
        let text = br#"{"architecture":"amd64","os":"linux","config":{"Env":["A=b"],"Entrypoint":null,"Cmd":["sh"],
            "User":"1000:1000","WorkingDir":"/w","StopSignal":"SIGQUIT","Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},
            "Labels":null,"Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":null},"history":[]}"#;
        let stored = Stored::read(text, "it").unwrap();
        let config = Config {
            env: vec!["A=b".into()],
            cmd: vec!["sh".into()],
            user: "1000:1000".into(),
            working_dir: "/w".into(),
            stop_signal: Some("SIGQUIT".into()),
            volumes: vec!["/data".into()],
            exposed_ports: vec!["80/tcp".into()],
            ..Config::default()
        };
        assert_eq!(stored.config, config);
        assert_eq!(stored.platform().unwrap().to_string(), "linux/amd64");
        assert_eq!(Stored::read(br#"{"config":null,"rootfs":{}}"#, "it").unwrap().config, Config::default());
        assert!(Stored::read(br#"{"config":{}}"#, "it").is_err(), "an image has layers");
        assert!(Stored::read(br#"{"rootfs":{"diff_ids":["sha256:../../etc"]}}"#, "it").is_err());
        let digest = Digest::sha256(b"").to_string();
        let many = serde_json::json!({"rootfs": {"diff_ids": vec![digest; 501]}}).to_string();
        assert!(Stored::read(many.as_bytes(), "it").unwrap_err().to_string().contains("501 layers"));
    }

    #[test]
    fn commands_and_arguments_go_together_as_in_kubernetes() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let config = Config { entrypoint: words("e"), cmd: words("c"), ..Config::default() };
        for (command, args, whole) in [("", "", "e c"), ("", "a", "e a"), ("k", "", "k"), ("k", "a", "k a")] {
            assert_eq!(config.command(&words(command), &words(args)), words(whole));
        }
    }
}
