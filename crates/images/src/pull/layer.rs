//! A layer on its way from the registry to its folder: what comes is unpacked at once, and a connection that breaks is taken up again
//! where it broke.

use std::io::{self, Read};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;
use tracing::debug_span;

use super::session::Session;
use crate::manifest::Descriptor;
use crate::unpack::Expected;
use crate::{Digest, Error, Store};

/// Pieces between network and disk: some hundred kilobytes.
const AHEAD: usize = 16;

/// Fetches and unpacks one layer.
pub(super) async fn fetch(
    store: &Store,
    session: &Session<'_>,
    blob: &Descriptor,
    diff_id: &Digest,
) -> Result<(), Error> {
    let (pieces, coming) = mpsc::channel(AHEAD);
    let unpacking = {
        let (store, blob, diff_id) = (store.clone(), blob.clone(), diff_id.clone());
        tasks::blocking(debug_span!("layer", digest = %blob.digest), move || {
            let expected = Expected { diff_id: &diff_id, blob: Some(&blob) };
            store.add_layer(&expected, Coming { coming, piece: Bytes::new() })
        })
    };
    // The sender goes with this future: the reader sees an end then, and stops.
    let sent = send(session, blob, pieces).await;
    let unpacked = match unpacking.await {
        Ok(unpacked) => unpacked,
        Err(why) => Err(Error::Protocol { what: format!("layer {}", blob.digest), why: why.to_string() }),
    };
    // What ended the sending is the reason for whatever the reader says then.
    sent.and(unpacked)
}

/// Sends a blob's bytes; ends early, and well, where nobody reads any more.
async fn send(session: &Session<'_>, blob: &Descriptor, pieces: mpsc::Sender<Bytes>) -> Result<(), Error> {
    let mut received = 0;
    let mut made = 0;
    loop {
        let before = received;
        match once(session, blob, &pieces, &mut received).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                // A server that sends something isn't dead.
                made = if received > before { 1 } else { made + 1 };
                session.pause(made, error).await?;
            }
        }
    }
}

async fn once(
    session: &Session<'_>,
    blob: &Descriptor,
    pieces: &mpsc::Sender<Bytes>,
    received: &mut u64,
) -> Result<(), Error> {
    let what = format!("layer {}", blob.digest);
    let wrong_size = |found| Error::WrongSize { what: what.clone(), expected: blob.size, found };
    let answer = session.blob_from(&blob.digest, *received).await?;
    let mut skip = match answer.status {
        StatusCode::OK => *received,
        StatusCode::PARTIAL_CONTENT if begins(&answer.headers) == Some(*received) => 0,
        StatusCode::PARTIAL_CONTENT => {
            return Err(Error::Protocol { what, why: "another part came than was asked for".into() });
        }
        _ => return Err(answer.refusal(&what).await),
    };
    if answer.status == StatusCode::OK
        && let Some(told) = length(&answer.headers).filter(|told| *told != blob.size)
    {
        return Err(wrong_size(told));
    }
    let mut body = answer.body;
    while let Some(mut piece) = body.piece().await? {
        let skipped = skip.min(piece.len() as u64);
        skip -= skipped;
        // No longer than the piece.
        let piece = piece.split_off(skipped as usize);
        *received += piece.len() as u64;
        if *received > blob.size {
            return Err(wrong_size(*received));
        }
        if !piece.is_empty() && pieces.send(piece).await.is_err() {
            return Ok(());
        }
    }
    if *received < blob.size {
        let why = format!("only {received} of {} bytes of {what} came", blob.size);
        return Err(Error::Unreachable { registry: session.host().to_owned(), why });
    }
    Ok(())
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `bytes FROM-TO/ALL`
fn begins(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// What comes, for one who reads and waits.
struct Coming {
    coming: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Coming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.coming.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        buffer[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
