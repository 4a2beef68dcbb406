//! `Pod`.

use super::Rules;

pub(crate) struct Pod;

impl Rules for Pod {}
