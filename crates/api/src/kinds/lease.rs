//! `Lease`.

use super::Rules;

pub(crate) struct Lease;

impl Rules for Lease {}
