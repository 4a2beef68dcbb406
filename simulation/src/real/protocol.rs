//! What clients and a member's process say to each other, over a socket in the file system (which cut links
//! don't reach): lines of JSON, each question with one answer, but for watches.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::Revision;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

/// What a member is asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    /// Write a key.
    Put {
        /// The key.
        key: String,
        /// Its value.
        value: String,
    },
    /// Read a key, as new as any acknowledged write.
    Read(String),
    /// Read a key as the member knows it.
    Peek(String),
    /// Delete all keys that begin so.
    Delete(String),
    /// Tell all changes from a revision on, for as long as the connection lasts.
    Watch(Revision),
    /// Tell the whole state, as new as any acknowledged write.
    Dump,
    /// Tell whether you lead.
    Leads,
}

/// What it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Answer {
    /// A change was carried out, at this revision.
    Done(Revision),
    /// The checksum of a key's value, if the key is there.
    Value(Option<u32>),
    /// There is no room on the disk: the change was not and will not be carried out.
    NoRoom(String),
    /// It failed; a change may have been carried out all the same.
    Failed(String),
    /// A change that a watch saw.
    Event {
        /// Its revision.
        revision: Revision,
        /// The key.
        key: String,
        /// Whether it was written, not deleted.
        is_put: bool,
    },
    /// The whole state.
    Dump(Dump),
    /// Whether the member leads.
    Leads(bool),
}

/// A member's whole state.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dump {
    /// The newest revision.
    pub revision: Revision,
    /// The keys.
    pub entries: Vec<Entry>,
}

/// A key as a member knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The revision that made it.
    pub created: Revision,
    /// The revision that last wrote it.
    pub modified: Revision,
    /// How often it was written.
    pub version: u64,
    /// The checksum of its value.
    pub checksum: u32,
}

/// One end of a connection.
#[derive(Debug)]
pub struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    buffer: String,
}

impl Line {
    /// A connection to a member's process. One that is stopped still lets connect, for a while.
    pub async fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = timeout(Duration::from_secs(1), UnixStream::connect(socket)).await??;
        Ok(Self::new(stream))
    }

    /// An end of a connection that is there.
    pub fn new(stream: UnixStream) -> Self {
        let (reader, writer) = stream.into_split();
        Line { reader: BufReader::new(reader), writer, buffer: String::new() }
    }

    /// Says something.
    pub async fn say(&mut self, what: &impl Serialize) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(what)?;
        line.push('\n');
        Ok(self.writer.write_all(line.as_bytes()).await?)
    }

    /// Hears something; none at the end of the connection.
    pub async fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        self.buffer.clear();
        if self.reader.read_line(&mut self.buffer).await? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&self.buffer).map(Some).context("a line that makes no sense")
    }

    /// Asks, and waits for the answer for so long. The connection is of no use after an error.
    pub async fn ask(&mut self, ask: &Ask, patience: Duration) -> anyhow::Result<Answer> {
        timeout(patience, async {
            self.say(ask).await?;
            self.hear().await?.context("the member's process hung up")
        })
        .await
        .context("no answer in time")?
    }
}
