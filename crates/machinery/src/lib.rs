//! What can be done with any Kubernetes object, whatever its kind, without I/O. The kinds themselves are in the crate
//! `api`; what differs from kind to kind comes in through a [`Resource`]: its [`schema`] and its [`rules`].
//!
//! - What goes over the wire: [`Object`], [`Status`] and its [`Cause`]s; CBOR ([`to_cbor`], [`from_cbor`]).
//! - What a kind is: [`Resource`], [`Subresource`], [`schema`], [`rules`]; resources that a [`Definition`] adds
//!   ([`Custom`]), and the rules that its schema holds ([`SchemaRules`]).
//! - The way of a write: [`decode`] and [`check`], [`set_defaults`], [`patch`] or an apply ([`FieldManager`]),
//!   [`prepare_create`] and [`prepare_update`], [`validate_create`] and [`validate_update`]; [`to_stored`] and
//!   [`from_stored`] between the version that is served and the one that lies in the store.
//! - What a write is held against: [`Faults`], [`metadata`], [`name`], [`Conform`].
//! - The way of a read: [`LabelSelector`], [`FieldSelector`] and [`Selectable`], [`table`] and [`partial_metadata`],
//!   [`scale_of`].
//! - Small things that objects consist of: [`Quantity`], [`Share`], [`time`](mod@time), [`network_of`]; the way to a part of one:
//!   [`json_path`].

mod apply;
mod cbor;
mod cidr;
mod conform;
mod convert;
mod custom;
mod decode;
mod defaults;
mod faults;
mod go_time;
mod go_value;
mod int_or_percent;
mod json_patch;
pub mod json_path;
mod junk;
mod meta;
pub mod metadata;
mod mismatch;
pub mod name;
mod object;
mod patch;
mod pointer;
mod resource;
pub mod rules;
mod scale;
pub mod schema;
mod schema_rules;
mod selector;
mod status;
mod strategic;
mod strategy;
mod table;
pub mod time;
mod validate;
mod warnings;

pub use apply::{
    Conversions, FieldManager, FieldSet, Patch, StructuralType, Topology, Typing, Unconverted,
    managed_of_object, managed_of_scale, manager_of_user_agent, merge_configuration, same_but_times,
};
pub use cbor::{CborError, from_cbor, to_cbor};
pub use cel::{Quantity, QuantityError};
pub use cidr::network_of;
pub use conform::{Conform, settle};
pub use convert::{from_stored, to_stored};
pub use custom::{
    Approval, Conversion, ConversionReview, Custom, Definition, compare_versions, compile_pattern,
    is_known_format, validate_defaults,
};
pub use decode::{Decoded, check, check_applied, decode};
pub use defaults::set_defaults;
pub use faults::Faults;
pub use int_or_percent::{Share, share};
pub use meta::{OBJECT_META, meta_schemas};
pub use mismatch::TypeMismatch;
pub use name::generate_name;
pub use object::Object;
pub use patch::{PatchType, patch};
pub use resource::{Resource, Subresource, api_version};
pub use scale::{apply_scale, missing_replicas, scale_of};
pub use schema_rules::{REASONS, SchemaRules, field_path};
pub use selector::{FieldSelector, LabelSelector, Selectable};
pub use status::{Cause, Details, Status};
pub use strategy::{keep, prepare_create, prepare_update};
pub use table::{Include, partial_metadata, table};
pub use validate::{validate_create, validate_update};
pub use warnings::warnings;
