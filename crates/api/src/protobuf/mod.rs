//! Kubernetes' protobuf (`application/vnd.kubernetes.protobuf`) of the built-in kinds: JSON to bytes and back,
//! driven by a table of messages that is read as far as it is needed.
//!
//! What goes over the wire is `k8s\0` and a `runtime.Unknown`: apiVersion and kind, then the object's own message
//! (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`). Like upstream, a decoder leaves fields out that it
//! doesn't know, and a field that Go holds by value counts as absent while it is zero.

mod decode;
mod encode;
mod envelope;
mod table;
#[cfg(test)]
mod tests;
mod values;
mod wire;

pub(crate) use wire::{FIXED64, VARINT, put_bytes, put_key, put_nested, put_varint};

pub use decode::ProtobufError;
pub use envelope::{ProtobufList, from_protobuf, has_protobuf, protobuf_watch_frame, to_protobuf};
