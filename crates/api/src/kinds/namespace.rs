//! `Namespace`.

use super::Rules;

pub(crate) struct Namespace;

impl Rules for Namespace {}
