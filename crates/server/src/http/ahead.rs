//! Bodies that are read before their requests take a seat: a client that never sends its body holds up nobody.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use http_body_util::{BodyExt, BodyStream, StreamBody};
use hyper::body::Frame;
use machinery::Status;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Body;
use super::body::{LARGEST_BODY, broken_off};
use super::response::full;

/// Room is given out in pieces of this many bytes.
const PIECE: usize = 1 << 10;
/// All the room that there is for bodies whose requests have no seat yet: 64 MiB.
const PIECES: usize = 64 << 10;

/// The room for bodies whose requests have no seat yet.
#[derive(Debug)]
pub(crate) struct Ahead {
    room: Arc<Semaphore>,
}

impl Default for Ahead {
    fn default() -> Self {
        Ahead { room: Arc::new(Semaphore::new(PIECES)) }
    }
}

/// The room that a body takes, until this is dropped.
pub(crate) type Room = Option<OwnedSemaphorePermit>;

impl Ahead {
    /// The body with all of it in memory; where there is no room for that, with the rest still to come: the request
    /// reads that once it has a seat.
    ///
    /// # Errors
    /// 400 if the body breaks off.
    pub(crate) async fn read(&self, mut body: Body) -> Result<(Body, Room), Status> {
        let (mut parts, mut size, mut room): (Vec<Bytes>, usize, Room) = (Vec::new(), 0, None);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(broken_off)?.into_data() else { continue };
            size += data.len();
            let pieces = u32::try_from(data.len().div_ceil(PIECE)).unwrap_or(u32::MAX);
            parts.push(data);
            let more = self.room.clone().try_acquire_many_owned(pieces).ok();
            let is_full = more.is_none();
            match (&mut room, more) {
                (Some(room), Some(more)) => room.merge(more),
                (room, more) => *room = room.take().or(more),
            }
            // A body that is too large is refused by the code that reads it to its end.
            if is_full || size > LARGEST_BODY {
                let known = stream::iter(parts).map(|part| Ok(Frame::data(part)));
                return Ok((StreamBody::new(known.chain(BodyStream::new(body))).boxed_unsync(), room));
            }
        }
        let whole = match parts.len() {
            1 => parts.swap_remove(0),
            _ => parts.concat().into(),
        };
        Ok((full(whole), room))
    }
}
