//! A snapshot that a peer sends, read while it comes: the pieces are gone before the last one is there.

use std::io::{self, Read};

use bytes::{Buf, Bytes};
use raft::eraftpb::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::info_span;

use super::ConnectionError;
use crate::Sealing;
use crate::embedded::image::{Image, ImageError};

/// How many pieces may wait to be read, so that one is read while the next one arrives.
const WAITING: usize = 2;

/// A snapshot on its way.
pub struct Arriving {
    message: Message,
    /// How many bytes are still to come.
    left: u64,
    pieces: mpsc::Sender<Bytes>,
    reader: JoinHandle<Result<Image, ImageError>>,
}

impl Arriving {
    /// One of which `length` bytes will come, with values sealed so. It ends when this is dropped.
    pub fn new(message: Message, length: u64, sealing: Sealing) -> Self {
        let (pieces, waiting) = mpsc::channel(WAITING);
        let source = Waiting { pieces: waiting, piece: Bytes::new() };
        let read = move || Image::read_opened(source, length, &sealing);
        let reader = tasks::blocking(info_span!("read a snapshot"), read);
        Arriving { message, left: length, pieces, reader }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// [`ConnectionError`] if it is no piece of this snapshot.
    pub async fn add(mut self, piece: Bytes) -> Result<Self, ConnectionError> {
        let left = self.left.checked_sub(piece.len() as u64);
        let too_much = || ConnectionError::Refused("it sends more of a snapshot than it announced".into());
        self.left = left.ok_or_else(too_much)?;
        match self.pieces.send(piece).await {
            Ok(()) => Ok(self),
            // Its reader has found something wrong and says so.
            Err(_) => Err(self.finish().await.err().unwrap_or_else(too_much)),
        }
    }

    /// Whether all of it is there.
    pub fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Waits until what came is read.
    ///
    /// # Errors
    /// [`ConnectionError`] if it is no snapshot.
    pub async fn finish(self) -> Result<(Message, Image), ConnectionError> {
        drop(self.pieces);
        let read = self.reader.await.map_err(|problem| ConnectionError::Refused(problem.to_string()))?;
        Ok((self.message, read?))
    }
}

/// The pieces as one stream of bytes.
struct Waiting {
    pieces: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Waiting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let Some(next) = self.pieces.blocking_recv() else { return Ok(0) };
            self.piece = next;
        }
        let length = into.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut into[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::membership::Membership;

    fn sent() -> Vec<u8> {
        Image::initial(Membership::default()).pieces(7).collect::<Vec<_>>().concat()
    }

    #[tokio::test]
    async fn a_snapshot_is_read_from_pieces_of_any_length() {
        let bytes = sent();
        for length in [1, 3, bytes.len()] {
            let mut arriving = Arriving::new(Message::default(), bytes.len() as u64, Sealing::default());
            for piece in bytes.chunks(length) {
                assert!(!arriving.is_whole());
                arriving = arriving.add(Bytes::new()).await.unwrap();
                arriving = arriving.add(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert!(arriving.is_whole());
            assert_eq!(arriving.finish().await.unwrap().1.index, 1);
        }
    }

    #[tokio::test]
    async fn more_than_was_announced_is_refused_and_so_is_less() {
        let bytes = Bytes::from(sent());
        let arriving = Arriving::new(Message::default(), bytes.len() as u64 - 1, Sealing::default());
        assert!(arriving.add(bytes.clone()).await.is_err());
        let arriving = Arriving::new(Message::default(), bytes.len() as u64 + 1, Sealing::default());
        let arriving = arriving.add(bytes.clone()).await.unwrap();
        assert!(!arriving.is_whole());
        assert!(arriving.finish().await.is_err(), "the connection broke");
        let arriving = Arriving::new(Message::default(), bytes.len() as u64, Sealing::default());
        let changed: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        let finished = match arriving.add(changed.into()).await {
            Ok(arriving) => arriving.finish().await.map(|_| ()),
            Err(problem) => Err(problem),
        };
        assert!(matches!(finished, Err(ConnectionError::Malformed(_))));
    }
}
