//! gRPC as etcd's API needs it: a way to one of several servers, and a server that lets in etcdctl.

mod authority;
mod channel;
mod listener;
mod together;

pub use channel::{Channel, Endpoint};
pub use listener::{Answer, Answers, Router, Tls, answer_stream, answer_unary, refused, serve};
