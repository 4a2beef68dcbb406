//! Messages in a stream of bytes: a flag, four bytes of length, the message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;

use super::{Code, Status};

const HEAD: usize = 5;

/// Cuts messages out of a stream.
#[derive(Debug)]
pub struct Frames {
    buffer: BytesMut,
    limit: usize,
}

impl Frames {
    /// For messages of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Frames { buffer: BytesMut::new(), limit }
    }

    /// More of the stream has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, if there is one yet.
    ///
    /// # Errors
    /// If it is longer than the limit, compressed, or no message of this kind.
    pub fn message<M: Message + Default>(&mut self) -> Result<Option<M>, Status> {
        let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [flag, length @ ..] = *head;
        if flag != 0 {
            return Err(Status::new(Code::Unimplemented, "compressed messages aren't understood here"));
        }
        let length = u32::from_be_bytes(length) as usize;
        if length > self.limit {
            let limit = self.limit;
            let message = format!("grpc: received message larger than max ({length} vs. {limit})");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        if self.buffer.len() < HEAD + length {
            self.buffer.reserve(HEAD + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(HEAD);
        let message = self.buffer.split_to(length).freeze();
        let malformed = |problem: prost::DecodeError| {
            Status::new(Code::Internal, format!("grpc: failed to unmarshal the received message: {problem}"))
        };
        M::decode(message).map(Some).map_err(malformed)
    }

    /// Whether the stream may end here.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// A message as it goes into the stream.
    pub fn encode(message: &impl Message) -> Bytes {
        let length = message.encoded_len();
        let mut bytes = BytesMut::with_capacity(HEAD + length);
        bytes.put_u8(0);
        bytes.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        message.encode_raw(&mut bytes);
        bytes.freeze()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct KeyValue {
        #[prost(bytes = "bytes", tag = "5")]
        value: Bytes,
        #[prost(int64, tag = "4")]
        version: i64,
    }

    #[derive(Clone, PartialEq, Message)]
    struct Nested {
        #[prost(message, optional, boxed, tag = "1")]
        inner: Option<Box<Nested>>,
        #[prost(message, repeated, tag = "2")]
        values: Vec<KeyValue>,
        #[prost(map = "string, int32", tag = "3")]
        named: std::collections::HashMap<String, i32>,
    }

    proptest! {
        #[test]
        fn messages_come_out_however_the_stream_is_cut(values in prop::collection::vec(".{0,40}", 0..5), cut in 1usize..9) {
            let messages: Vec<KeyValue> =
                values.into_iter().map(|value| KeyValue { value: value.into(), version: 7 }).collect();
            let stream: Vec<u8> = messages.iter().flat_map(|m| Frames::encode(m).to_vec()).collect();
            let mut frames = Frames::new(1000);
            let mut seen = Vec::new();
            for part in stream.chunks(cut) {
                frames.push(part);
                while let Some(message) = frames.message::<KeyValue>().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert!(frames.is_empty());
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn noise_is_refused_without_a_panic(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut stream = vec![0];
            stream.extend((noise.len() as u32).to_be_bytes());
            stream.extend(&noise);
            for bytes in [&stream[..], &noise[..]] {
                for kind in 0..2 {
                    let mut frames = Frames::new(150);
                    frames.push(bytes);
                    let _ = if kind == 0 { frames.message::<Nested>().map(drop) } else { frames.message::<KeyValue>().map(drop) };
                }
            }
        }
    }

    #[test]
    fn a_message_over_the_limit_is_refused_before_it_came() {
        let mut frames = Frames::new(10);
        frames.push(&[0, 0, 0, 0, 11]);
        assert_eq!(frames.message::<KeyValue>().unwrap_err().code, Code::ResourceExhausted);
    }
}
