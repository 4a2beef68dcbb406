//! `RuntimeClass`.

use super::Rules;

pub(crate) struct RuntimeClass;

impl Rules for RuntimeClass {}
