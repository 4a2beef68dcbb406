//! How much is recorded, and when.

use serde::{Deserialize, Serialize};

/// How much of a request is recorded; each level has what those before it have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Level {
    /// Nothing.
    None,
    /// Who asked for what, when, and with which outcome.
    Metadata,
    /// What was sent, too.
    Request,
    /// What was answered, too.
    RequestResponse,
}

impl Level {
    /// All of them.
    pub(crate) const ALL: [Level; 4] = [Level::None, Level::Metadata, Level::Request, Level::RequestResponse];

    /// As policies and events have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        }
    }
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Stage {
    /// It has come, and nothing is done yet.
    RequestReceived,
    /// Its answer has begun and goes on for as long as the client wants, such as a watch's.
    ResponseStarted,
    /// Its answer is over.
    ResponseComplete,
    /// The server broke on it.
    Panic,
}
