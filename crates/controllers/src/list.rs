//! All controllers.

use crate::controller::{Controller, Part};
use crate::kept::{ReplicaSet, ReplicationController};
use crate::{
    account_token, attachment, autoscaler, certificate, cluster_role, cron_job, daemon_set, deployment,
    disruption, endpoints, ephemeral_volume, eviction, expiry, fencing, flow_schema, garbage, host_services,
    job, job_expiry, load_balancer, namespace, node, pod_gc, protection, replica_set, resource_claim,
    resource_quota, stateful_set, storage_class, validating_policy, volumes,
};

/// All controllers. Of those that are equally urgent, the earlier ones' keys come first where nothing else orders them.
pub(crate) static CONTROLLERS: &[&dyn Controller] = &[
    &node::Nodes,
    &fencing::Fences,
    &eviction::Evictions,
    &endpoints::Services,
    &endpoints::GoneServices,
    &host_services::HostServices,
    &load_balancer::Holders,
    &load_balancer::Allocation,
    &replica_set::Sets::<ReplicaSet>::new(),
    &replica_set::Sets::<ReplicationController>::new(),
    &deployment::Deployments,
    &daemon_set::DaemonSets,
    &stateful_set::StatefulSets,
    &job::Jobs,
    &cron_job::CronJobs,
    &autoscaler::Autoscalers,
    &volumes::ClaimBinder,
    &attachment::Attachments,
    &ephemeral_volume::EphemeralVolumes,
    &resource_claim::PodClaims,
    &volumes::LocalVolumes,
    &disruption::Budgets,
    &namespace::Namespaces,
    &namespace::EndingNamespaces,
    &account_token::AccountTokens,
    &protection::Claims,
    &resource_claim::UsedClaims,
    &protection::Volumes,
    &protection::AttributesClasses,
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

/// Those of a part, each with its place in the list.
pub(crate) fn controllers(part: Part) -> impl Iterator<Item = (usize, &'static dyn Controller)> {
    let all = CONTROLLERS.iter().copied().enumerate();
    all.filter(move |(_, controller)| part == Part::All || controller.stays())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use objects::Pool;
    use serde_json::json;
    use store::{Memory, Store, Txn};

    use super::*;
    use crate::{Ended, Key, Moment, Now, Silence, View};

    #[tokio::test]
    async fn beside_upstream_s_manager_run_those_whose_work_it_does_not_do() {
        let names: Vec<_> = controllers(Part::Own).map(|(_, controller)| controller.name()).collect();
        let expected = [
            "host-services",
            "address-holders",
            "load-balancer",
            "local-volumes",
            "storage-class",
            "local-folders",
            "flow-schema",
            "event-expiry",
        ];
        assert_eq!(names, expected);

        let (store, metadata) = (Memory::default(), json!({"name": "kubernetes", "namespace": "default"}));
        let ready = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]});
        for (key, object) in [
            (objects::key("", "namespaces", "", "default"), json!({"metadata": {"name": "default"}})),
            (objects::key("", "services", "default", "kubernetes"), json!({"metadata": metadata})),
            (objects::key("", "nodes", "", "n1"), json!({"metadata": {"name": "n1"}, "status": ready})),
            (
                objects::key("flowcontrol.apiserver.k8s.io", "flowschemas", "", "f"),
                json!({"metadata": {"name": "f"}, "spec": {"priorityLevelConfiguration": {"name": "none"}}}),
            ),
        ] {
            store.txn(Txn::put(key, object.to_string())).await.unwrap();
        }
        let view = View::load_part(store.snapshot(), &Pool::default(), Part::Own);
        let mut keys = Vec::new();
        Key::all(&view, |key, _| keys.push(key));
        // Tests stand for the driver, which reads the clocks.
        #[allow(clippy::disallowed_methods)]
        let now = Now { wall: jiff::Timestamp::now(), instant: std::time::Instant::now() };
        let (none, ended) = (Silence::new(), Ended::new());
        let moment = Moment { now, silence: &none, leases: &none, ended: &ended, answers: None, notes: None };
        let writes = |name: &str| {
            let own = keys.iter().filter(|key| key.component() == name);
            own.map(|key| key.reconcile(&view, &moment).actions.len()).sum::<usize>()
        };
        assert_eq!(writes("endpoint-slice-controller"), 2, "where the API is");
        assert_eq!(writes(objects::LOCAL_PATH), 1, "the class of folders");
        assert_eq!(writes("api-priority-and-fairness-config-consumer-v1"), 1);
        assert!(keys.iter().all(|key| key.is_of(Part::Own)));
        let mut heard = Vec::new();
        Key::heard("n1", |key, _| heard.push(key));
        let own = heard.iter().filter(|key| key.is_of(Part::Own));
        assert!(
            own.clone().count() > 0 && own.clone().all(|key| key.component() == "service-controller"),
            "that a host is silent is the manager's business, but for the addresses that it holds"
        );
    }

    #[test]
    fn no_two_controllers_have_the_same_name() {
        let names: BTreeSet<_> = CONTROLLERS.iter().map(|controller| controller.name()).collect();
        assert_eq!(names.len(), CONTROLLERS.len());
    }
}
