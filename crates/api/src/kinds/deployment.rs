//! `Deployment`.

use super::Rules;

pub(crate) struct Deployment;

impl Rules for Deployment {}
