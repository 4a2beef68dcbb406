//! `ReplicaSet`.

use super::Rules;

pub(crate) struct ReplicaSet;

impl Rules for ReplicaSet {}
