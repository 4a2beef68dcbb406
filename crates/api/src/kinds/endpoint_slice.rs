//! `EndpointSlice`.

use super::Rules;

pub(crate) struct EndpointSlice;

impl Rules for EndpointSlice {}
