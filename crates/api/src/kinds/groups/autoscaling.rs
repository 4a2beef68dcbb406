//! `autoscaling`.

use crate::resource::Resource;

pub(super) static RESOURCES: &[Resource] = &[];
