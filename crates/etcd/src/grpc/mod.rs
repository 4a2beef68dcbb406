//! gRPC over HTTP/2, as far as etcd's API needs it (gRPC's "PROTOCOL-HTTP2"): five bytes before each message,
//! the outcome in the trailers. No compression: etcd's clients ask for none unless told to.

mod authority;
mod channel;
mod frame;
mod listener;
mod messages;
mod status;

pub use channel::{Channel, Endpoint, Questions};
pub use frame::{Frames, MOST_MESSAGE_BYTES};
pub use listener::{Answer, Answers, Router, Tls, answer_stream, answer_unary, refused, serve};
pub use messages::Messages;
pub use status::{Code, Status};
