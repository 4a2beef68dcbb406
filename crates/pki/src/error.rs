//! What can go wrong with keys and certificates.

use std::path::PathBuf;

/// Why a certificate could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{}: {why}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file or text does not hold what it should.
    #[error("{what} is not usable: {why}")]
    Unusable {
        /// What was read.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The certificate and the key are not a pair.
    #[error("the certificate of {0} and its key don't belong together")]
    NotAPair(String),
    /// A certificate could not be made, for example because a name isn't one.
    #[error("can't make a certificate for {subject}: {why}")]
    Issue {
        /// For whom.
        subject: String,
        /// What is wrong.
        why: String,
    },
    /// TLS refused the certificates.
    #[error("TLS can't be set up: {0}")]
    Tls(String),
}

impl Error {
    pub(crate) fn unusable(what: &str, why: impl ToString) -> Self {
        Error::Unusable { what: what.to_owned(), why: why.to_string() }
    }

    pub(crate) fn issue(subject: &str, why: impl ToString) -> Self {
        Error::Issue { subject: subject.to_owned(), why: why.to_string() }
    }

    pub(crate) fn tls(why: impl ToString) -> Self {
        Error::Tls(why.to_string())
    }
}
