//! `Endpoints`.

use super::Rules;

pub(crate) struct Endpoints;

impl Rules for Endpoints {}
