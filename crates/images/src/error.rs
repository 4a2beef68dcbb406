//! What can go wrong with images, and what Kubernetes calls it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Digest;
use crate::digest::shortened;
use crate::unpack::UnpackError;

/// Why an image can't be had, kept or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that no image can have. In the words of the kubelet.
    #[error("couldn't parse image name {name:?}: {why}")]
    InvalidName {
        /// The name, shortened if it is long.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A digest that isn't one.
    #[error("digest {digest:?}: {why}")]
    InvalidDigest {
        /// The text, shortened if it is long.
        digest: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is no such image here.
    #[error("there is no image {0} on this host")]
    NotPresent(String),
    /// A container uses the image.
    #[error("image {0} is in use")]
    InUse(String),
    /// Content is not what its digest says.
    #[error("{what} should have the digest {expected} and has {found}")]
    WrongDigest {
        /// Which content.
        what: String,
        /// What was promised.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Content is longer or shorter than was said.
    #[error("{what} should have {expected} bytes and has {found}")]
    WrongSize {
        /// Which content.
        what: String,
        /// What was promised.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// A manifest, an index or a configuration that can't be used.
    #[error("{what}: {why}")]
    Manifest {
        /// Which one.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// There is nothing for this machine.
    #[error("no match for platform {platform} in {what}: it is for {offered}")]
    NoPlatform {
        /// The index or the image.
        what: String,
        /// What this machine is.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// Something is larger than may be.
    #[error("{what} has more than {most} bytes")]
    TooLarge {
        /// What.
        what: String,
        /// How much it may have.
        most: u64,
    },
    /// A layer can't be unpacked.
    #[error("layer {layer}: {why}")]
    Layer {
        /// Its digest.
        layer: Digest,
        /// What is wrong.
        why: UnpackError,
    },
    /// An archive or a folder is no image.
    #[error("{}: {why}", path.display())]
    Archive {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The store of images is of a version of Holdfast that this one doesn't know, or damaged.
    #[error("{}: {why}", path.display())]
    Store {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// What an image needs was removed while it came in; trying again helps.
    #[error("layer {0} was removed meanwhile")]
    Removed(Digest),
    /// A registry, or a host that it named, can't be reached, or doesn't answer in time.
    #[error("registry {registry} can't be reached: {why}")]
    Unreachable {
        /// Which one.
        registry: String,
        /// What happened.
        why: String,
    },
    /// A registry says no.
    #[error("{what}: {}", refusal(*.status, .why))]
    Refused {
        /// To what.
        what: String,
        /// The status of HTTP.
        status: u16,
        /// What it says.
        why: String,
        /// When it may be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// A registry, or who it named, answers what can't be.
    #[error("{what}: {why}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The configuration of a registry can't be.
    #[error("registry {registry:?}: {why}")]
    Registries {
        /// Its entry.
        registry: String,
        /// What is wrong.
        why: String,
    },
    /// Credentials can't be read; they aren't in the message.
    #[error("credentials for registries: {0}")]
    Credentials(String),
    /// The disk refuses.
    #[error("can't {doing} {}: {why}", path.display())]
    Disk {
        /// What was to be done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// What Kubernetes calls the failure of an image, in a container's status and in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The name is no image's name.
    InvalidImageName,
    /// The image may not be pulled, and is not there.
    ErrImageNeverPull,
    /// The registry can't be reached.
    RegistryUnavailable,
    /// Anything else that keeps an image from being there.
    ErrImagePull,
}

impl Reason {
    /// The reason's text: `k8s.io/kubernetes/pkg/kubelet/images/types.go`.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::InvalidImageName => "InvalidImageName",
            Reason::ErrImageNeverPull => "ErrImageNeverPull",
            Reason::RegistryUnavailable => "RegistryUnavailable",
            Reason::ErrImagePull => "ErrImagePull",
        }
    }
}

impl Error {
    /// What Kubernetes calls it.
    pub fn reason(&self) -> Reason {
        match self {
            Error::InvalidName { .. } => Reason::InvalidImageName,
            Error::NotPresent(_) => Reason::ErrImageNeverPull,
            Error::Unreachable { .. } => Reason::RegistryUnavailable,
            _ => Reason::ErrImagePull,
        }
    }

    pub(crate) fn disk(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |why| Error::Disk { doing, path: path.to_owned(), why }
    }

    pub(crate) fn manifest(what: impl Into<String>, why: impl Into<String>) -> Error {
        Error::Manifest { what: what.into(), why: shortened(&why.into()) }
    }
}

/// What a status means of an image, in containerd's words where it has some.
fn refusal(status: u16, why: &str) -> String {
    match status {
        401 | 403 => format!(
            "pull access denied, repository does not exist or may require authorization: server message: {why}"
        ),
        404 => format!("not found: {why}"),
        status => format!("the registry answers {status}: {why}"),
    }
}
