//! `ServiceAccount`.

use super::Rules;

pub(crate) struct ServiceAccount;

impl Rules for ServiceAccount {}
