//! Watches: a JSON document a line, for as long as the server goes on.

use crate::{Error, ServerStatus, Stream};
use bytes::BytesMut;
use serde::Deserialize;
use serde_json::Value;

/// The bytes of one event at most: an object is bound to 3 MiB by the API server, a Table of it is not larger.
const LIMIT: usize = 16 << 20;

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchKind {
    /// It was created, or came into the selection.
    Added,
    /// It changed.
    Modified,
    /// It is gone, or left the selection.
    Deleted,
    /// Nothing happened up to this revision.
    Bookmark,
}

/// One event of a watch.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchEvent {
    /// What happened.
    pub kind: WatchKind,
    /// The object as it is now (or was, when it is gone).
    pub object: Value,
}

/// The events of a collection. Dropping it ends the watch.
pub struct Watch {
    stream: Stream,
    path: String,
    lines: Lines,
}

impl Watch {
    pub(crate) fn new(stream: Stream, path: String) -> Self {
        Watch { stream, path, lines: Lines::default() }
    }

    /// The next event; none when the server ended the watch in good order. An `ERROR` event is an error: of code
    /// 410 when the revision asked for is no longer held, after which one lists again. Cancelling loses nothing.
    pub async fn next(&mut self) -> Result<Option<WatchEvent>, Error> {
        loop {
            if let Some(line) = self.lines.pop() {
                return event(&line).map(Some).map_err(|e| match e {
                    Fault::Server(status) => Error::Server(status),
                    Fault::Sense(why) => Error::Answer { path: self.path.clone(), why },
                });
            }
            let Some(chunk) = self.stream.chunk().await? else { return Ok(None) };
            if !self.lines.push(&chunk) {
                return Err(Error::TooLong { path: self.path.clone(), limit: LIMIT });
            }
        }
    }
}

/// Bytes cut into lines.
#[derive(Default)]
struct Lines {
    buffer: BytesMut,
    /// Up to here there is no line end.
    searched: usize,
}

impl Lines {
    /// False when a line has grown out of bounds.
    fn push(&mut self, chunk: &[u8]) -> bool {
        self.buffer.extend_from_slice(chunk);
        self.buffer.len() - self.searched.min(self.buffer.len()) <= LIMIT && self.buffer.len() <= 2 * LIMIT
    }

    fn pop(&mut self) -> Option<BytesMut> {
        loop {
            match self.buffer[self.searched..].iter().position(|b| *b == b'\n') {
                None => {
                    self.searched = self.buffer.len();
                    return None;
                }
                Some(at) => {
                    let line = self.buffer.split_to(self.searched + at + 1);
                    self.searched = 0;
                    if !line.trim_ascii().is_empty() {
                        return Some(line);
                    }
                }
            }
        }
    }
}

enum Fault {
    Server(Box<ServerStatus>),
    Sense(String),
}

fn event(line: &[u8]) -> Result<WatchEvent, Fault> {
    #[derive(Deserialize)]
    struct Line {
        r#type: String,
        object: Value,
    }
    let line: Line =
        serde_json::from_slice(line).map_err(|e| Fault::Sense(format!("an event is not JSON: {e}")))?;
    let kind = match line.r#type.as_str() {
        "ADDED" => WatchKind::Added,
        "MODIFIED" => WatchKind::Modified,
        "DELETED" => WatchKind::Deleted,
        "BOOKMARK" => WatchKind::Bookmark,
        "ERROR" => {
            let code = line.object.get("code").and_then(Value::as_u64).unwrap_or(500);
            let code = u16::try_from(code).unwrap_or(500);
            let status = ServerStatus::read(code, line.object.to_string().as_bytes());
            return Err(Fault::Server(Box::new(status)));
        }
        other => return Err(Fault::Sense(format!("an event of the unknown type {other:?}"))),
    };
    Ok(WatchEvent { kind, object: line.object })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_across_chunks() {
        let text = "{\"a\":1}\n\n  \n{\"b\":2}\n{\"c\"";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut seen = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                assert!(lines.push(chunk));
                while let Some(line) = lines.pop() {
                    seen.push(String::from_utf8(line.to_vec()).unwrap());
                }
            }
            assert_eq!(seen, ["{\"a\":1}\n", "{\"b\":2}\n"], "chunks of {size}");
        }
    }

    #[test]
    fn a_line_has_bounds() {
        let mut lines = Lines::default();
        let chunk = vec![b'x'; 1 << 20];
        let pushed = (0..64).take_while(|_| {
            let within = lines.push(&chunk);
            assert!(lines.pop().is_none());
            within
        });
        assert!(pushed.count() <= (2 * LIMIT) >> 20);
    }

    #[test]
    fn events_and_errors() {
        let Ok(added) = event(br#"{"type":"ADDED","object":{"kind":"Pod"}}"#) else { panic!("not an event") };
        assert_eq!((added.kind, added.object["kind"].as_str()), (WatchKind::Added, Some("Pod")));
        let gone =
            br#"{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"old"}}"#;
        let Err(Fault::Server(status)) = event(gone) else { panic!("not an error") };
        assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
        for nonsense in ["{}", "x", r#"{"type":"LOST","object":{}}"#] {
            assert!(matches!(event(nonsense.as_bytes()), Err(Fault::Sense(_))), "{nonsense}");
        }
    }
}
