//! Reading the file, and what may be wrong with it.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{HostConfig, Problem};

/// The most bytes that a configuration may have: a thousand times what one of a large cluster needs.
const LARGEST: u64 = 1 << 20;
/// The most problems that one error tells.
const MOST_TOLD: usize = 20;

/// Why a host's configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file can't be read.
    #[error("can't read the host's configuration {path}: {why}; check the path and its permissions")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: io::Error,
    },
    /// The file is larger than a configuration can be.
    #[error("{path} is larger than {LARGEST} bytes: this can't be a host's configuration; check the path")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is neither JSON nor YAML.
    #[error("{path} isn't a host's configuration: {why}; write it as JSON or YAML")]
    Text {
        /// The file.
        path: PathBuf,
        /// Where it goes wrong.
        why: values::YamlError,
    },
    /// A field stands there twice.
    #[error("{path} isn't a host's configuration: {what}; keep one of them")]
    Twice {
        /// The file.
        path: PathBuf,
        /// Which field.
        what: String,
    },
    /// A field is missing, unknown, or not what it has to be.
    #[error("{path} isn't a host's configuration: {field}: {why}; docs/configuration.md tells the fields")]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field; `.` for the whole file.
        field: String,
        /// What is wrong with it.
        why: serde_json::Error,
    },
    /// The fields are what they have to be, and don't fit together.
    #[error("{path} can't be used: {}", Listed(problems))]
    Problems {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problems: Vec<Problem>,
    },
}

struct Listed<'a>(&'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.0.iter().take(MOST_TOLD).enumerate() {
            write!(f, "{}{problem}", if place == 0 { "" } else { "\n  " })?;
        }
        match self.0.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl HostConfig {
    /// Reads a host's configuration from its file, JSON or YAML, and makes sure that it can work.
    ///
    /// # Errors
    /// [`Error`], with the file, the field, and what to do.
    pub fn load(path: &Path) -> Result<Self, Error> {
        Self::from_text(path, &read(path)?)
    }

    /// The configuration that a file's text is, which somebody else has read: `path` is only for errors.
    ///
    /// # Errors
    /// As with [`HostConfig::load`], but for reading the file.
    pub fn from_text(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let config = Self::parse(path, text)?;
        let problems = config.check().problems;
        if problems.is_empty() { Ok(config) } else { Err(Error::Problems { path: path.into(), problems }) }
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, Error> {
        let path = || path.to_owned();
        let (value, twice) =
            values::yaml_and_duplicates(text).map_err(|why| Error::Text { path: path(), why })?;
        if let Some(what) = twice.into_iter().next() {
            return Err(Error::Twice { path: path(), what });
        }
        serde_path_to_error::deserialize(value).map_err(|error| {
            let field = error.path().to_string();
            Error::Field { path: path(), field, why: error.into_inner() }
        })
    }

    /// The text of the file, as JSON.
    pub fn text(&self) -> Vec<u8> {
        // Maps with names for keys, numbers and texts: there is nothing that JSON can't say.
        let mut text = serde_json::to_vec_pretty(self).unwrap_or_default();
        text.push(b'\n');
        text
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text))
        .map_err(|why| Error::Read { path: path.into(), why })?;
    if text.len() as u64 > LARGEST {
        return Err(Error::TooLarge { path: path.into() });
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::check::tests::config;
    use crate::{DEFAULTS, Eviction, Ports, Timeouts};

    fn load(text: impl AsRef<[u8]>) -> Result<HostConfig, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, text).unwrap();
        let told = |error: Error| error.to_string().replace(path.to_str().unwrap(), "FILE");
        HostConfig::load(&path).map_err(told)
    }

    #[test]
    fn a_configuration_is_read_as_it_was_written() {
        let config = config();
        assert_eq!(load(config.text()).unwrap(), config);
        let value: Value = serde_json::from_slice(&config.text()).unwrap();
        assert_eq!(load(values::to_yaml(&value)).unwrap(), config, "as YAML");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_field() {
        let value: Value = serde_json::from_slice(&config().text()).unwrap();
        let with = |pointer: &str, other: Value| {
            let mut value = value.clone();
            *value.pointer_mut(pointer).unwrap() = other;
            value.to_string()
        };
        let mut unknown = value.clone();
        unknown["podsCidr"] = json!("10.0.0.0/8");
        let mut missing = value.clone();
        missing.as_object_mut().unwrap().remove("name");
        for (text, told) in [
            (r#"{"name": "n1", "name": "n2"}"#.to_owned(), r#"duplicate field "name""#),
            ("a: [".to_owned(), "FILE isn't a host's configuration: "),
            ("{}".to_owned(), "missing field `clusterId`"),
            (missing.to_string(), "missing field `name`"),
            (unknown.to_string(), "podsCidr: unknown field `podsCidr`"),
            (with("/serviceCidr", json!("10.96.0.0")), "serviceCidr: invalid IP address syntax"),
            (with("/ports/api", json!(65536)), "ports.api: invalid value: integer `65536`, expected u16"),
            (with("/timeouts/store/tick", json!("fast")), "timeouts.store.tick: invalid value"),
            (with("/peers/n1", json!("n1.example")), "peers.n1: invalid IP address syntax"),
            (with("/ports/api", json!(2380)), "FILE can't be used: ports.store: "),
            ("x".repeat(LARGEST as usize + 1), "FILE is larger than 1048576 bytes"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(told) && error.contains("FILE"), "{told}: {error}");
        }
        let nowhere = HostConfig::load(Path::new("/nowhere/config.json")).unwrap_err().to_string();
        assert!(nowhere.contains("/nowhere/config.json"), "{nowhere}");
    }

    #[test]
    fn the_example_of_the_documentation_can_work() {
        let page = include_str!("../../../docs/configuration.md");
        let example: String =
            page.lines().filter_map(|line| line.strip_prefix("    ")).fold(String::new(), |text, line| {
                if text.contains("pkiDir:") { text } else { text + line + "\n" }
            });
        let config = load(&example).unwrap();
        assert_eq!((&*config.name, config.peers.len(), config.check()), ("n1", 3, Default::default()));
    }

    #[test]
    fn the_defaults_are_those_that_the_file_of_defaults_tells() {
        let told: Value = values::from_yaml(DEFAULTS.as_bytes()).unwrap();
        // The file names each of them; `install` reads the others from it as settings.
        assert_eq!(told["ports"], json!(Ports::default()));
        assert_eq!(told["timeouts"], json!(Timeouts::default()));
        assert_eq!(told["eviction"]["hard"], json!(Eviction::default().hard));
    }

    #[test]
    fn what_is_left_out_is_as_by_default() {
        let mut value: Value = serde_json::from_slice(&config().text()).unwrap();
        value["ports"] = json!({"agent": 10260});
        value.as_object_mut().unwrap().remove("timeouts");
        let config = load(value.to_string()).unwrap();
        assert_eq!(config.ports, Ports { agent: 10260, ..Ports::DEFAULT });
        assert_eq!(config.timeouts, Timeouts::default());
    }
}
