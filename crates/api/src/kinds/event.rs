//! `Event`.

use super::Rules;

pub(crate) struct Event;

impl Rules for Event {}
