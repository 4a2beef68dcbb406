//! `Node`.

use super::Rules;

pub(crate) struct Node;

impl Rules for Node {}
