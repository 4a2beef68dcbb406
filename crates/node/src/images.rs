//! What the agent asks of images: it knows neither registries nor archives.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::pods::Folders;

/// An image, as far as containers are made of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Image {
    /// The digest of its manifest, which no other image has.
    pub digest: String,
    /// Its name by digest, which a container's status tells.
    pub id: String,
    /// The folders of its layers in overlayfs' own form, the lowest first.
    pub layers: Vec<PathBuf>,
    /// How large they are together, in bytes.
    pub size: u64,
    /// Its variables, as `NAME=value`.
    pub env: Vec<String>,
    /// What is started; `cmd` are its arguments then.
    pub entrypoint: Vec<String>,
    /// What is started, or the arguments of `entrypoint`.
    pub cmd: Vec<String>,
    /// As whom: names or numbers of a user and a group, with a colon between; root if empty.
    pub user: String,
    /// Where; `/` if empty.
    pub working_dir: String,
    /// The signal that asks it to end.
    pub stop_signal: Option<String>,
}

impl Image {
    /// What a container starts, by Kubernetes' rules: a command of its own replaces all that the image says, arguments the
    /// image's arguments alone.
    pub(crate) fn command(&self, command: Vec<String>, args: Vec<String>) -> Vec<String> {
        match (command.is_empty(), args.is_empty()) {
            (false, _) => [command, args].concat(),
            (true, false) => [self.entrypoint.clone(), args].concat(),
            (true, true) => [&self.entrypoint[..], &self.cmd].concat(),
        }
    }
}

/// An image that is there, for who chooses a host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// What it is called, by digest first.
    pub names: Vec<String>,
    /// How large it is, in bytes.
    pub size: u64,
}

/// Why there is no image of a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// It is no image's name.
    #[error("{0}")]
    Name(String),
    /// Its registry can't be reached.
    #[error("{0}")]
    Unreachable(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// A secret that opens registries: of the type `kubernetes.io/dockerconfigjson`, or its elder without `json`.
#[derive(Clone, PartialEq, Eq)]
pub enum PullSecret {
    /// The content of `.dockerconfigjson`.
    ConfigJson(Vec<u8>),
    /// The content of `.dockercfg`.
    Config(Vec<u8>),
}

/// Without its content.
impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PullSecret::ConfigJson(_) => "ConfigJson(…)",
            PullSecret::Config(_) => "Config(…)",
        })
    }
}

/// The images of a host.
pub trait Images: fmt::Debug + Send + Sync {
    /// The image of a name as pods have it, if it is there. Reads the disk.
    ///
    /// # Errors
    /// If the name is none, or that can't be known.
    fn find(&self, name: &str) -> Result<Option<Arc<Image>>, ImageError>;

    /// Brings the image of a name from its registry, which these secrets may open.
    fn pull<'a>(
        &'a self,
        name: &'a str,
        secrets: Vec<PullSecret>,
    ) -> BoxFuture<'a, Result<Arc<Image>, ImageError>>;

    /// The folder in which they lie.
    fn folder(&self) -> PathBuf;

    /// All images that are there. Reads the disk, unless nothing has changed.
    fn list(&self) -> Vec<Present>;

    /// Keeps an image from being removed for as long as the file `mark` is there, which this writes with the image's digest;
    /// false if it is gone already. Reads and writes the disk.
    ///
    /// # Errors
    /// If the mark can't be written.
    fn keep(&self, image: &Image, mark: &Path) -> Result<bool, ImageError>;

    /// Removes images that nobody uses where the disk fills up, and says what there is to tell if that frees too little. `now`
    /// is by a clock that only goes on. Reads and writes the disk.
    ///
    /// # Errors
    /// If they can't be removed.
    fn collect(&self, now: Duration) -> Result<Option<String>, ImageError>;

    /// Removes all images that nobody uses; as [`Images::collect`] else.
    ///
    /// # Errors
    /// If they can't be removed.
    fn clear(&self, now: Duration) -> Result<(), ImageError>;
}

/// The digests of the images that the pods of a host use, whether its agent runs or not: those that [`Images::keep`] has marked.
/// `data_dir` is the agent's [`Options::data_dir`](crate::Options::data_dir).
///
/// # Errors
/// If the marks can't be read.
pub fn images_in_use(data_dir: &Path) -> io::Result<BTreeSet<String>> {
    Folders::new(data_dir.to_owned()).images_in_use()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_opens_a_registry_is_not_shown() {
        let secrets = [PullSecret::ConfigJson(b"hidden".to_vec()), PullSecret::Config(b"hidden".to_vec())];
        assert_eq!(format!("{secrets:?}"), "[ConfigJson(…), Config(…)]");
    }

    #[test]
    fn a_pods_command_replaces_the_images() {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let image = Image { entrypoint: list(&["enter"]), cmd: list(&["a", "b"]), ..Image::default() };
        for (command, args, expected) in [
            (&[][..], &[][..], &["enter", "a", "b"][..]),
            (&[], &["c"], &["enter", "c"]),
            (&["run"], &[], &["run"]),
            (&["run"], &["c"], &["run", "c"]),
        ] {
            assert_eq!(image.command(list(command), list(args)), list(expected));
        }
    }
}
