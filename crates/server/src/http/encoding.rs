//! The encodings that answers go out in and bodies come in.

use api::ProtobufError;
use bytes::Bytes;
use http::Response;
use machinery::{CborError, Object, Resource, Status};
use serde_json::Value;
use values::JsonError;

use super::Body;
use super::response::bytes;

/// How a value becomes bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
    Cbor,
}

impl Encoding {
    /// All of them, the one that is taken where anything will do first.
    pub(crate) const ALL: [Encoding; 4] =
        [Encoding::Json, Encoding::Yaml, Encoding::Protobuf, Encoding::Cbor];
    /// Those of what isn't an object.
    pub(crate) const PLAIN: [Encoding; 2] = [Encoding::Json, Encoding::Yaml];

    /// The encoding of a media type.
    pub(crate) fn of(media_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|encoding| encoding.media_type() == media_type)
    }

    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Yaml => "application/yaml",
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf",
            Encoding::Cbor => "application/cbor",
        }
    }

    /// The media type of a watch.
    pub(crate) const fn stream_type(self) -> &'static str {
        match self {
            Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
            Encoding::Cbor => "application/cbor-seq",
            other => other.media_type(),
        }
    }

    /// Whether objects of a resource can be written so.
    pub(crate) fn has(self, resource: &Resource) -> bool {
        self != Encoding::Protobuf || api::has_protobuf(&resource.api_version(), resource.kind)
    }

    /// The media types offered, for a client that asked for another one.
    pub(crate) fn names(offered: &[Encoding]) -> String {
        let names: Vec<&str> = offered.iter().map(|encoding| encoding.media_type()).collect();
        names.join(", ")
    }

    /// A value's bytes.
    pub(crate) fn encode(self, value: &Value) -> Result<Bytes, Status> {
        Ok(match self {
            Encoding::Json => value.to_string().into(),
            Encoding::Yaml => values::to_yaml(value).into(),
            Encoding::Cbor => machinery::to_cbor(value).into(),
            Encoding::Protobuf => {
                let encoded = value.as_object().and_then(api::to_protobuf);
                encoded.ok_or_else(|| super::negotiate::not_acceptable(&Encoding::PLAIN))?.into()
            }
        })
    }

    /// An answer that is this value.
    pub(crate) fn answer(self, code: u16, value: &Value) -> Result<Response<Body>, Status> {
        Ok(bytes(code, self.media_type(), self.encode(value)?))
    }

    /// The value in a body that is not JSON.
    pub(crate) fn decode(self, body: &[u8]) -> Result<Value, Status> {
        let wrong = |why: &dyn std::fmt::Display| {
            Status::bad_request(format!(
                "the body of the request can't be read as {}: {why}",
                self.media_type()
            ))
        };
        match self {
            Encoding::Json => values::from_json(body).map_err(|error| match error {
                JsonError::TooLarge(exceeded) => Status::too_large(exceeded),
                JsonError::Broken(error) => wrong(&error),
            }),
            Encoding::Yaml => super::body::yaml(body).map(|(value, _)| value),
            Encoding::Cbor => machinery::from_cbor(body).map_err(|error| match error {
                CborError::TooLarge(exceeded) => Status::too_large(exceeded),
                error => wrong(&error),
            }),
            Encoding::Protobuf => api::from_protobuf(body, ("", "")).map_err(|error| match error {
                ProtobufError::TooLarge(exceeded) => Status::too_large(exceeded),
                error => wrong(&error),
            }),
        }
    }
}

/// A whole list as protobuf, its objects one after the other.
pub(crate) fn protobuf_list<'a>(
    resource: &Resource,
    metadata: &Value,
    objects: impl Iterator<Item = Result<Object, Status>> + 'a,
) -> Result<Bytes, Status> {
    let mut list = api::ProtobufList::new(&resource.api_version(), resource.kind, metadata)
        .ok_or_else(|| super::negotiate::not_acceptable(&Encoding::PLAIN))?;
    for object in objects {
        list.push(&object?);
    }
    Ok(list.finish().into())
}
