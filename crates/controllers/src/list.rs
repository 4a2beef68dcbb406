//! All controllers.

use crate::controller::Controller;
use crate::kept::{ReplicaSet, ReplicationController};
use crate::{
    account_token, api_service, autoscaler, certificate, cluster_role, cron_job, daemon_set, deployment,
    disruption, endpoints, ephemeral_volume, eviction, expiry, flow_schema, garbage, job, job_expiry,
    namespace, node, pod_gc, protection, replica_set, resource_quota, stateful_set, storage_class,
    validating_policy, volumes,
};

/// All controllers. Of those that are equally urgent, the earlier ones' keys come first where nothing else orders them.
pub(crate) static CONTROLLERS: &[&dyn Controller] = &[
    &node::Nodes,
    &eviction::Evictions,
    &endpoints::Services,
    &endpoints::GoneServices,
    &api_service::ApiService,
    &replica_set::Sets::<ReplicaSet>::new(),
    &replica_set::Sets::<ReplicationController>::new(),
    &deployment::Deployments,
    &daemon_set::DaemonSets,
    &stateful_set::StatefulSets,
    &job::Jobs,
    &cron_job::CronJobs,
    &autoscaler::Autoscalers,
    &volumes::ClaimBinder,
    &ephemeral_volume::EphemeralVolumes,
    &volumes::LocalVolumes,
    &disruption::Budgets,
    &namespace::Namespaces,
    &namespace::EndingNamespaces,
    &account_token::AccountTokens,
    &protection::Claims,
    &protection::Volumes,
    &volumes::VolumeBinder,
    &storage_class::FolderClass,
    &volumes::LocalFolders,
    &resource_quota::Quotas,
    &cluster_role::ClusterRoles,
    &flow_schema::FlowSchemas,
    &certificate::Certificates,
    &disruption::DisruptedPods,
    &validating_policy::ValidatingPolicies,
    &garbage::Garbage,
    &eviction::Cancelled,
    &pod_gc::LostNodes,
    &pod_gc::Unplaced,
    &pod_gc::Ended,
    &expiry::Expiry,
    &job_expiry::FinishedJobs,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_controllers_have_the_same_name() {
        let names: BTreeSet<_> = CONTROLLERS.iter().map(|controller| controller.name()).collect();
        assert_eq!(names.len(), CONTROLLERS.len());
    }
}
