//! The kinds of the Kubernetes API, without I/O: `machinery` does what can be done with any object, and learns from here
//! what the object's kind wants.
//!
//! - Each kind: its entry in the table of resources ([`resource`], [`resources`]), its schema, and its code in `kinds`
//!   (defaults, validation, what an update may change, columns of tables).
//! - What is served at one moment, definitions included: [`Catalog`], described as discovery ([`discovery_groups`] and its
//!   like) and as OpenAPI ([`openapi_v3`], [`openapi_v2`]).
//! - The kinds as protobuf: [`to_protobuf`], [`from_protobuf`].
//! - What only some kinds have: amounts of resources ([`Amounts`], [`quota_hard`]), admission policies ([`policy`]).

mod amounts;
mod catalog;
mod cron;
mod discovery;
mod kinds;
mod openapi;
pub mod policy;
mod protobuf;
mod quota;
mod schemas;

pub use amounts::{Amounts, PodResources, pod_resources};
pub use catalog::Catalog;
pub use cron::{Calendar, Schedule};
pub use discovery::{
    discovery_aggregated, discovery_api_versions, discovery_group, discovery_groups, discovery_resources,
};
pub use kinds::{resource, resource_of_kind, resources, validate_endpoint_addresses};
pub use openapi::{
    openapi_hash, openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_documents, openapi_v3_index,
    openapi_v3_protobuf,
};
pub use protobuf::{
    ProtobufError, ProtobufList, from_protobuf, has_protobuf, protobuf_watch_frame, to_protobuf,
};
pub use quota::{Quotable, quota_hard, quota_resources};
pub use schemas::SCALE;
