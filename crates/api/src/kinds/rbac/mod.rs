//! `rbac.authorization.k8s.io`.

mod binding;
mod role;

pub(crate) use binding::{ClusterRoleBinding, RoleBinding};
pub(crate) use role::{ClusterRole, Role};

const GROUP: &str = "rbac.authorization.k8s.io";
