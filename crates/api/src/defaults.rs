//! Defaults: the schema's and the kind's own.

use serde_json::{Map, Value};

use crate::object::Object;
use crate::resource::Resource;
use crate::schema::{Schema, Shape, schemas};
use crate::status::Status;

/// Fields that upstream writes as `null` where there is nothing: their Go fields are no pointers, and are written
/// always. The published schemas don't tell.
const NULLS: [(&str, &[&str]); 55] = [
    ("io.k8s.api.admissionregistration.v1.MutatingWebhook", &["admissionReviewVersions"]),
    ("io.k8s.api.admissionregistration.v1.ValidatingWebhook", &["admissionReviewVersions"]),
    ("io.k8s.api.apps.v1.DaemonSetCondition", &["lastTransitionTime"]),
    ("io.k8s.api.apps.v1.DeploymentCondition", &["lastUpdateTime", "lastTransitionTime"]),
    ("io.k8s.api.apps.v1.ReplicaSetCondition", &["lastTransitionTime"]),
    ("io.k8s.api.apps.v1.StatefulSetCondition", &["lastTransitionTime"]),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerCondition", &["lastTransitionTime"]),
    ("io.k8s.api.autoscaling.v2.HorizontalPodAutoscalerStatus", &["currentMetrics"]),
    ("io.k8s.api.batch.v1.JobCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("io.k8s.api.batch.v1.PodFailurePolicy", &["rules"]),
    ("io.k8s.api.batch.v1.PodFailurePolicyOnExitCodesRequirement", &["values"]),
    ("io.k8s.api.batch.v1.SuccessPolicy", &["rules"]),
    ("io.k8s.api.core.v1.AzureFilePersistentVolumeSource", &["secretNamespace"]),
    ("io.k8s.api.core.v1.CephFSPersistentVolumeSource", &["monitors"]),
    ("io.k8s.api.core.v1.CephFSVolumeSource", &["monitors"]),
    ("io.k8s.api.core.v1.ContainerImage", &["names"]),
    ("io.k8s.api.core.v1.ContainerStateRunning", &["startedAt"]),
    ("io.k8s.api.core.v1.ContainerStateTerminated", &["startedAt", "finishedAt"]),
    ("io.k8s.api.core.v1.Event", &["firstTimestamp", "lastTimestamp", "eventTime"]),
    ("io.k8s.api.core.v1.EventSeries", &["lastObservedTime"]),
    ("io.k8s.api.core.v1.LimitRangeSpec", &["limits"]),
    ("io.k8s.api.core.v1.NamespaceCondition", &["lastTransitionTime"]),
    ("io.k8s.api.core.v1.NodeAllocatableResourceClaimStatus", &["resources"]),
    ("io.k8s.api.core.v1.NodeCondition", &["lastHeartbeatTime", "lastTransitionTime"]),
    ("io.k8s.api.core.v1.NodeSelector", &["nodeSelectorTerms"]),
    ("io.k8s.api.core.v1.PersistentVolumeClaimCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("io.k8s.api.core.v1.PodCondition", &["lastProbeTime", "lastTransitionTime"]),
    ("io.k8s.api.core.v1.PodExtendedResourceClaimStatus", &["requestMappings"]),
    ("io.k8s.api.core.v1.PodSpec", &["containers"]),
    ("io.k8s.api.core.v1.ProjectedVolumeSource", &["sources"]),
    ("io.k8s.api.core.v1.RBDPersistentVolumeSource", &["monitors"]),
    ("io.k8s.api.core.v1.RBDVolumeSource", &["monitors"]),
    ("io.k8s.api.core.v1.ReplicationControllerCondition", &["lastTransitionTime"]),
    ("io.k8s.api.core.v1.TopologySelectorLabelRequirement", &["values"]),
    ("io.k8s.api.core.v1.TypedLocalObjectReference", &["apiGroup"]),
    ("io.k8s.api.core.v1.TypedObjectReference", &["apiGroup"]),
    ("io.k8s.api.discovery.v1.Endpoint", &["addresses"]),
    ("io.k8s.api.discovery.v1.EndpointSlice", &["endpoints", "ports"]),
    ("io.k8s.api.events.v1.Event", &["deprecatedFirstTimestamp", "deprecatedLastTimestamp", "eventTime"]),
    ("io.k8s.api.events.v1.EventSeries", &["lastObservedTime"]),
    ("io.k8s.api.flowcontrol.v1.NonResourcePolicyRule", &["nonResourceURLs", "verbs"]),
    ("io.k8s.api.flowcontrol.v1.PolicyRulesWithSubjects", &["subjects"]),
    ("io.k8s.api.flowcontrol.v1.ResourcePolicyRule", &["apiGroups", "namespaces", "resources", "verbs"]),
    ("io.k8s.api.networking.v1.HTTPIngressRuleValue", &["paths"]),
    ("io.k8s.api.rbac.v1.ClusterRole", &["rules"]),
    ("io.k8s.api.rbac.v1.PolicyRule", &["verbs"]),
    ("io.k8s.api.rbac.v1.Role", &["rules"]),
    ("io.k8s.api.resource.v1.AllocatedDeviceStatus", &["conditions"]),
    ("io.k8s.api.resource.v1.DeviceClaim", &["requests"]),
    ("io.k8s.api.storage.v1.CSINodeDriver", &["topologyKeys"]),
    ("io.k8s.api.storage.v1.CSINodeSpec", &["drivers"]),
    ("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionSpec", &["versions"]),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        &["conditions", "storedVersions"],
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.WebhookConversion",
        &["conversionReviewVersions"],
    ),
    ("io.k8s.apimachinery.pkg.apis.meta.v1.Condition", &["lastTransitionTime"]),
];

/// Fills in what a client may leave out. Doing it again changes nothing.
///
/// # Errors
/// 413 if the defaults of a definition's schema would take more memory than they may.
pub fn set_defaults(resource: &Resource, object: &mut Object) -> Result<(), Status> {
    if let Some(custom) = &resource.custom {
        let why = "the defaults of its schema would take too much memory";
        return custom.fill(object).map_err(|_| Status::too_large(why));
    }
    // First the schema's, so that the kind's find the parts that are always there.
    fill(resource, object);
    resource.rules.set_defaults(object);
    fill(resource, object);
    Ok(())
}

/// The schema's part of [`set_defaults`].
pub(crate) fn fill(resource: &Resource, object: &mut Object) {
    if let Some(schema) = schemas().named(resource.schema) {
        fill_object(schema, &mut object.0);
    }
    object.ensure_metadata();
}

fn fill_object(schema: &Schema, object: &mut Map<String, Value>) {
    for field in schema.fields_with_default() {
        if let Some(default) = &field.default
            && !object.contains_key(field.name)
        {
            object.insert(field.name.to_owned(), default.clone());
        }
    }
    for (name, value) in object.iter_mut().filter(|(_, value)| value.is_object() || value.is_array()) {
        if let Some(field) = schema.field(name) {
            fill_value(&field.shape, value);
        }
    }
    for field in schema.nulls {
        object.entry(*field).or_insert(Value::Null);
    }
}

/// The fields that are `null` in an object of the schema of that name where there is nothing.
pub(crate) fn nulls(schema: &str) -> &'static [&'static str] {
    NULLS.iter().find(|(name, _)| *name == schema).map_or(&[], |(_, fields)| fields)
}

fn fill_value(shape: &Shape, value: &mut Value) {
    match (shape, value) {
        (Shape::Object(number), Value::Object(object)) => fill_object(schemas().numbered(*number), object),
        (Shape::List(items), Value::Array(list)) => list.iter_mut().for_each(|item| fill_value(items, item)),
        (Shape::Map(values), Value::Object(map)) => map.values_mut().for_each(|v| fill_value(values, v)),
        _ => {}
    }
}
