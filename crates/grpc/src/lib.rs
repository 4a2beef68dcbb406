//! gRPC over HTTP/2 (gRPC's "PROTOCOL-HTTP2"): five bytes before each message, the outcome in the trailers. Both sides share
//! how messages lie in a stream ([`Frames`], [`Messages`]) and how a call ends ([`Status`]); a client calls over a [`Connection`],
//! whatever stream leads to the server. No compression: clients ask for none unless told to.

mod connection;
mod frame;
mod messages;
mod status;
mod unix;

pub use connection::{Broken, Connection, Driver, Origin, Pings, Questions};
pub use frame::Frames;
pub use messages::Messages;
pub use status::{Code, Status};
pub use unix::call_unix;
