//! `ConfigMap`.

use super::Rules;

pub(crate) struct ConfigMap;

impl Rules for ConfigMap {}
