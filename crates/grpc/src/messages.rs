//! The messages of one direction of a call.

use http_body_util::BodyExt;
use hyper::body::Incoming;
use prost::Message;

use super::{Frames, Status};

/// Messages as they come in.
#[derive(Debug)]
pub struct Messages {
    body: Incoming,
    frames: Frames,
    /// How the other side said that it ended; a server's answer must, a client's question never does.
    outcome: Option<Result<(), Status>>,
    is_answer: bool,
}

impl Messages {
    /// A client's, each of at most `limit` bytes.
    pub fn question(body: Incoming, limit: usize) -> Self {
        Messages { body, frames: Frames::new(limit), outcome: Some(Ok(())), is_answer: false }
    }

    /// A server's, likewise.
    pub fn answer(body: Incoming, limit: usize) -> Self {
        Messages { body, frames: Frames::new(limit), outcome: None, is_answer: true }
    }

    /// The next message; none at the end. Nothing is lost where the caller stops waiting.
    ///
    /// # Errors
    /// How the call ended, if not well; or that its connection broke, or brought what is no message.
    pub async fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        loop {
            if let Some(message) = self.frames.message()? {
                return Ok(Some(message));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.frames.push(&data),
                    Err(frame) if self.is_answer => {
                        self.outcome = frame.trailers_ref().and_then(Status::from_trailers);
                    }
                    Err(_) => {}
                },
                Some(Err(problem)) => {
                    return Err(Status::unavailable(format_args!("the connection was lost: {problem}")));
                }
                None if !self.frames.is_empty() => {
                    return Err(Status::unavailable("the connection was lost within a message"));
                }
                None => {
                    let lost = || Err(Status::unavailable("the answer ended without an outcome"));
                    return self.outcome.clone().unwrap_or_else(lost).map(|()| None);
                }
            }
        }
    }
}
