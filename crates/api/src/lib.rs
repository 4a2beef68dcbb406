//! What a Kubernetes object is, without I/O: kinds and schemas, decoding, defaults, validation, what a write
//! may change, patches, selectors, tables, names, discovery.

mod amounts;
mod apply;
mod cbor;
mod conform;
mod convert;
mod cron;
mod custom;
mod decode;
mod defaults;
mod discovery;
mod faults;
mod int_or_percent;
mod json_patch;
mod kinds;
mod metadata;
mod name;
mod object;
mod openapi;
mod patch;
pub mod policy;
mod protobuf;
mod quota;
mod resource;
mod scale;
mod schema;
mod schema_rules;
mod selector;
mod status;
mod strategic;
mod strategy;
mod table;
mod time;
mod validate;

pub use amounts::{Amounts, PodResources, pod_resources};
pub use apply::{
    Conversions, FieldManager, FieldSet, Patch, StructuralType, Typing, Unconverted, managed_of_object,
    managed_of_scale, manager_of_user_agent, merge_configuration, same_but_times,
};
pub use cbor::{CborError, from_cbor, to_cbor};
pub use cel::{Quantity, QuantityError};
pub use convert::{from_stored, to_stored};
pub use custom::{Catalog, Conversion, ConversionReview, Custom, Definition};
pub use decode::{Decoded, check, decode};
pub use defaults::set_defaults;
pub use discovery::{
    discovery_aggregated, discovery_api_versions, discovery_group, discovery_groups, discovery_resources,
};
pub use faults::Faults;
pub use kinds::validate_endpoint_addresses;
pub use name::generate_name;
pub use object::Object;
pub use openapi::{
    openapi_hash, openapi_v2, openapi_v2_protobuf, openapi_v3, openapi_v3_documents, openapi_v3_index,
    openapi_v3_protobuf,
};
pub use patch::{PatchType, patch};
pub use protobuf::{
    ProtobufError, ProtobufList, from_protobuf, has_protobuf, protobuf_watch_frame, to_protobuf,
};
pub use quota::{Quotable, quota_hard, quota_resources};
pub use resource::{Resource, Subresource, resource, resource_of_kind, resources};
pub use scale::{apply_scale, missing_replicas, scale_of};
pub use schema_rules::SchemaRules;
pub use selector::{FieldSelector, LabelSelector, Selectable};
pub use status::{Cause, Details, Status};
pub use strategy::{prepare_create, prepare_update};
pub use table::{Include, partial_metadata, table};
pub use validate::{validate_create, validate_update};
