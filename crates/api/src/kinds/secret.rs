//! `Secret`.

use super::Rules;

pub(crate) struct Secret;

impl Rules for Secret {}
