//! `authorization.k8s.io`.

use crate::resource::Resource;

pub(super) static RESOURCES: &[Resource] = &[];
