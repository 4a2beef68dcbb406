//! `Service`.

use super::Rules;

pub(crate) struct Service;

impl Rules for Service {}
