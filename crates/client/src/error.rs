//! What can go wrong between a caller and the API server.

use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// A request, or the way to it, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no: its `Status`.
    #[error("{0}")]
    Server(Box<ServerStatus>),
    /// A file could not be read.
    #[error("cannot read {path}: {why}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        why: std::io::Error,
    },
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig {origin} cannot be used: {why}")]
    Kubeconfig {
        /// The file, or where else it came from.
        origin: String,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// No kubeconfig was found anywhere.
    #[error("no kubeconfig found: give --kubeconfig FILE or set KUBECONFIG (looked at {looked})")]
    NoKubeconfig {
        /// The places that were tried.
        looked: String,
    },
    /// Nobody accepted the connection.
    #[error("cannot connect to the server {server}: {why}; is the cluster up, and is this its address?")]
    Connect {
        /// Host and port.
        server: String,
        /// What the operating system said.
        why: std::io::Error,
    },
    /// The connection is not to be trusted, or the server does not trust us.
    #[error("the TLS handshake with {server} failed: {why}; is the kubeconfig this cluster's?")]
    Tls {
        /// Host and port.
        server: String,
        /// What TLS said.
        why: std::io::Error,
    },
    /// Nothing came back in time.
    #[error("the server {server} did not answer within {} s", .after.as_secs_f32())]
    Timeout {
        /// Host and port.
        server: String,
        /// The time given.
        after: Duration,
    },
    /// The connection broke in the middle.
    #[error("the connection to the server {server} broke: {why}")]
    Broken {
        /// Host and port.
        server: String,
        /// What HTTP said, with its causes.
        why: String,
    },
    /// A request of more bytes than a server takes.
    #[error("the request to {path} is too large: it has {bytes} bytes, and a server takes {limit} at most")]
    TooLarge {
        /// What was asked.
        path: String,
        /// Its size.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// An answer of more bytes than a client should hold.
    #[error("the answer to {path} is longer than {limit} bytes")]
    TooLong {
        /// What was asked.
        path: String,
        /// The bound.
        limit: usize,
    },
    /// An answer that makes no sense.
    #[error("the server's answer to {path} makes no sense: {why}")]
    Answer {
        /// What was asked.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// A request that cannot be put into words: a name with impossible characters, for example.
    #[error("{path:?} cannot be asked for: {why}")]
    Request {
        /// What was to be asked.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The server knows no such kind.
    #[error(
        "no matches for kind {kind:?} in version {version:?}: check the spelling of kind and apiVersion, \
         or install what defines the kind first"
    )]
    NoKind {
        /// The kind of the manifest.
        kind: String,
        /// Its apiVersion.
        version: String,
    },
    /// The server knows no resource of that name.
    #[error("the server doesn't have a resource type {0:?}")]
    NoResource(String),
    /// A manifest is not one.
    #[error("{origin}: {why}")]
    Manifest {
        /// The file, or where else it came from.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// The connection to `server` broke.
    pub(crate) fn broken(server: &str, error: &hyper::Error) -> Self {
        let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
        let why = causes.fold(error.to_string(), |said, cause| format!("{said}: {cause}"));
        Error::Broken { server: server.to_owned(), why: without_links(&why) }
    }

    /// The greeting failed.
    pub(crate) fn tls(server: &str, why: &std::io::Error) -> Self {
        Error::Tls {
            server: server.to_owned(),
            why: std::io::Error::new(why.kind(), without_links(&why.to_string())),
        }
    }

    /// The server's HTTP code, where the server answered at all.
    pub fn code(&self) -> Option<u16> {
        match self {
            Error::Server(status) => Some(status.code),
            _ => None,
        }
    }

    /// The server says that there is no such object.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }
}

/// The `Status` that a server answers instead of what was asked for.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct ServerStatus {
    /// The HTTP code.
    #[serde(default)]
    pub code: u16,
    /// The reason in one word, such as `NotFound`; empty where the server gave none.
    #[serde(default)]
    pub reason: String,
    /// What happened, for people.
    #[serde(default)]
    pub message: String,
    /// What it is about, as the server gave it.
    #[serde(default)]
    pub details: Value,
}

impl ServerStatus {
    /// Reads the body of an answer with an error code; one that is no `Status` becomes the message.
    pub fn read(code: u16, body: &[u8]) -> Self {
        if let Ok(value) = serde_json::from_slice::<Value>(body)
            && value.get("kind").and_then(Value::as_str) == Some("Status")
            && let Ok(mut status) = serde_json::from_value::<ServerStatus>(value)
        {
            status.code = code;
            return status;
        }
        let text: String = String::from_utf8_lossy(body).trim().chars().take(500).collect();
        let message = if text.is_empty() { format!("the server answered with code {code}") } else { text };
        ServerStatus { code, reason: String::new(), message, details: Value::Null }
    }
}

/// The words of kubectl: `Error from server (NotFound): pods "x" not found`.
impl std::fmt::Display for ServerStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.reason.as_str() {
            "" => write!(f, "Error from server: {}", self.message),
            reason => write!(f, "Error from server ({reason}): {}", self.message),
        }
    }
}

/// A library's words without the address of its manual: their reader uses a program, not the library.
fn without_links(words: &str) -> String {
    let is_link = |word: &&str| word.starts_with("https://docs.rs/");
    let kept: Vec<&str> = words.split(' ').filter(|word| !is_link(word)).collect();
    kept.join(" ").trim_end_matches(':').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_sends_its_reader_to_a_library_s_manual() {
        let rustls = "connection error: peer closed connection without sending TLS close_notify: \
                      https://docs.rs/rustls/latest/rustls/manual/_03_howto/index.html#unexpected-eof";
        let kept = "connection error: peer closed connection without sending TLS close_notify";
        assert_eq!(without_links(rustls), kept);
        assert_eq!(
            without_links("cannot reach https://10.0.0.1:6443: refused"),
            "cannot reach https://10.0.0.1:6443: refused"
        );
        let io = std::io::Error::new(std::io::ErrorKind::UnexpectedEof, rustls);
        assert!(!Error::tls("x", &io).to_string().contains("docs.rs"));
    }
}
