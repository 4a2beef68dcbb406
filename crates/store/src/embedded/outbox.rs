//! What waits to be sent to one peer. Putting something in never waits: what has no room is dropped, and
//! Raft sends it again.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use raft::eraftpb::Message;
use tokio::sync::Notify;

use super::core::Outgoing;
use super::image::Image;

/// What waits for a peer at most. A leader sends up to 256 messages without an answer (`max_inflight_msgs`), so more than these
/// are for a connection that is stuck: Raft sends what is dropped again.
const MOST_MESSAGES: usize = 4096;
const MOST_BYTES: usize = 32 << 20;
/// While there is no connection, only the newest messages are worth keeping.
const MOST_UNCONNECTED: usize = 64;

/// The next thing to send.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Message),
    /// A message with the snapshot that goes with it.
    Snapshot(Message, Box<Image>),
}

/// What waits for one peer.
#[derive(Debug, Default)]
pub struct Outbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    connected: bool,
    messages: VecDeque<Message>,
    bytes: usize,
    snapshot: Option<(Message, Image)>,
}

fn size(message: &Message) -> usize {
    message.entries.iter().map(|entry| entry.data.len() + entry.context.len() + 32).sum::<usize>() + 64
}

impl Outbox {
    /// Puts a message in, or drops it.
    pub fn push(&self, outgoing: Outgoing) {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(image) = outgoing.image {
                queue.snapshot = Some((outgoing.message, image));
            } else {
                let size = size(&outgoing.message);
                let full = queue.messages.len() >= MOST_MESSAGES || queue.bytes + size > MOST_BYTES;
                if queue.connected && full {
                    return;
                }
                queue.bytes += size;
                queue.messages.push_back(outgoing.message);
                while !queue.connected
                    && (queue.messages.len() > MOST_UNCONNECTED || queue.bytes > MOST_BYTES)
                {
                    queue.pop();
                }
            }
        }
        self.filled.notify_one();
    }

    /// Says whether there is a connection; tells whether a snapshot was waiting that is now dropped.
    pub fn set_connected(&self, connected: bool) -> bool {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.connected = connected;
        if connected {
            return false;
        }
        (queue.messages, queue.bytes) = (VecDeque::new(), 0);
        queue.snapshot.take().is_some()
    }

    /// The next message, if one waits.
    pub fn try_message(&self) -> Option<Message> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    /// Waits for the next thing to send; messages go before a snapshot.
    pub async fn next(&self) -> Item {
        loop {
            {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(message) = queue.pop() {
                    return Item::Message(message);
                }
                if let Some((message, image)) = queue.snapshot.take() {
                    return Item::Snapshot(message, Box::new(image));
                }
            }
            self.filled.notified().await;
        }
    }
}

impl Queue {
    fn pop(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= size(&message);
        Some(message)
    }
}
