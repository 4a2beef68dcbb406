//! The published schemas of the kinds, and what these don't say.

use std::sync::OnceLock;

use machinery::meta_schemas;
use machinery::schema::{NamedSchema, Schemas, Untold};
use serde_json::Value;

/// The published schemas, one a line, by name. `schemas/select.py` makes them.
const PUBLISHED: &str = include_str!("../schemas/schemas.json");
/// Their fields that are pointers in Go.
const POINTERS: &str = include_str!("../schemas/pointers.txt");
/// Their fields whose types have names of their own in Go.
const NAMED: &str = include_str!("../schemas/named.txt");

/// Fields that upstream writes as `null` where there is nothing: their Go fields are no pointers, and are written
/// always. The published schemas don't say so.
const NULLS: [(&str, &[&str]); 54] = [
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
];

/// The schemas of everything that is served.
pub(crate) fn schemas() -> &'static Schemas {
    static SCHEMAS: OnceLock<Schemas> = OnceLock::new();
    SCHEMAS.get_or_init(|| Schemas::new(PUBLISHED, (POINTERS, NAMED), &Kinds, Some(meta_schemas())))
}

/// The published schema of that name.
pub(crate) const fn published(name: &'static str) -> NamedSchema {
    NamedSchema::of(schemas, name)
}

/// The schema of `autoscaling/v1 Scale`, whatever it is the scale of.
pub const SCALE: NamedSchema = published("io.k8s.api.autoscaling.v1.Scale");

/// What the schemas of kinds don't say.
struct Kinds;

impl Untold for Kinds {
    fn nulls(&self, schema: &str) -> &'static [&'static str] {
        NULLS.iter().find(|(name, _)| *name == schema).map_or(&[], |(_, fields)| fields)
    }

    // What says that there is a status subresource says nothing more.
    fn is_object_without_fields(&self, schema: &str) -> bool {
        schema.ends_with(".CustomResourceSubresourceStatus")
    }

    // Go leaves empty texts and zeros out of these.
    fn is_omitted(&self, schema: &str, field: &str, default: &Value) -> bool {
        let kind = schema.rsplit('.').next().unwrap_or_default();
        let source = ["ConfigMap", "Secret", "LocalObject"].iter().any(|kinds| kind.starts_with(kinds));
        match (kind, field) {
            ("ReplicationControllerSpec", "minReadySeconds") | ("ScaleSpec", "replicas") => default == 0,
            (_, "name") => source && default == "",
            _ => false,
        }
    }

    // Where upstream asks whether there is a list, not how long it is.
    fn sees_empty(&self, schema: &str, field: &str) -> &'static [&'static str] {
        match (schema.rsplit('.').next().unwrap_or_default(), field) {
            ("EphemeralContainer", "ports" | "resizePolicy" | "restartPolicyRules")
            | ("HPAScalingRules", "policies")
            | ("JSONSchemaProps", _)
            | ("ResourceSliceSpec", "sharedCounters") => &[""],
            ("PodSpec", "overhead") => &["spec.overhead"],
            ("ResourceRequirements", "claims") => &["spec.resources.claims"],
            _ => &[],
        }
    }

    // Because it depends on others whether that is done, or because the fault is called otherwise.
    fn says_itself(&self, schema: &str, field: &str) -> bool {
        matches!(
            (schema.rsplit('.').next().unwrap_or_default(), field),
            ("AzureDiskVolumeSource", "cachingMode" | "kind")
                | (
                    "AppArmorProfile"
                        | "DaemonSetUpdateStrategy"
                        | "DeploymentStrategy"
                        | "HostPathVolumeSource"
                        | "SeccompProfile",
                    "type"
                )
                | ("ImageVolumeSource", "pullPolicy")
                | ("PersistentVolumeClaimSpec" | "PersistentVolumeSpec", "accessModes")
                | ("PodSpec", "dnsPolicy" | "restartPolicy")
                | ("PriorityClass", "preemptionPolicy")
                | ("ResourceQuotaSpec", "scopes")
                | ("ScopedResourceSelectorRequirement", "scopeName")
                | ("ServiceSpec", "externalTrafficPolicy")
                | ("StorageClass", "reclaimPolicy")
                | ("ValidationRule", "reason")
                | ("HTTPGetAction", "scheme")
                | ("Lifecycle", "stopSignal")
                | (
                    "NodeSelectorRequirement" | "ScopedResourceSelectorRequirement" | "Toleration",
                    "operator"
                )
                | ("Taint", "effect")
                | ("TopologySpreadConstraint", "whenUnsatisfiable")
                | ("VolumeMount", "mountPropagation")
        )
    }
}

#[cfg(test)]
mod tests {
    use machinery::Conform;
    use machinery::schema::Shape;
    use serde_json::json;

    use super::*;
    use crate::resources;

    #[test]
    fn every_resource_has_a_schema() {
        for resource in resources() {
            let schema = resource.schema.get();
            assert!(schema.is_some_and(|s| s.field("metadata").is_some()), "{:?}", resource.schema);
        }
    }

    #[test]
    fn every_schema_can_be_read() {
        let all = schemas();
        for name in all.names() {
            assert!(all.published(name).is_some(), "{name} is out of order, or no JSON");
            assert!(all.named(name).is_none_or(|schema| schema.name == name), "{name}");
        }
        assert!(all.names().count() > 500);
    }

    #[test]
    fn merge_keys_and_shapes_are_read() {
        let pod = schemas().named("io.k8s.api.core.v1.PodSpec").unwrap();
        let containers = pod.field("containers").unwrap();
        assert_eq!(containers.patch.merge_key, Some("name"));
        assert!(containers.required && containers.patch.merge);
        let volumes = pod.field("volumes").unwrap();
        assert!(volumes.patch.merge && volumes.patch.retain_keys);
        assert_eq!(pod.field("nodeSelector").unwrap().shape, Shape::Map(Box::new(Shape::Text)));
        let probe = schemas().named("io.k8s.api.core.v1.HTTPGetAction").unwrap();
        assert_eq!(probe.field("port").unwrap().shape, Shape::IntOrString);
    }

    fn conformed(schema: &str, value: Value) -> Value {
        let Value::Object(mut object) = value else { panic!("an object") };
        let mut faults = Vec::new();
        let schema = schemas().named(&format!("io.k8s.api.core.v1.{schema}")).unwrap();
        Conform::new(&mut faults, 10).object(schema, &mut object).unwrap();
        assert_eq!(faults, [""; 0]);
        Value::Object(object)
    }

    #[test]
    fn a_zero_is_nothing_unless_it_is_pointed_to() {
        let spec = json!({"hostNetwork": false, "nodeName": "", "enableServiceLinks": false, "priority": 0, "containers": []});
        // Containers are always written: what was given stays until then.
        let kept = json!({"enableServiceLinks": false, "priority": 0, "containers": []});
        assert_eq!(conformed("PodSpec", spec), kept);
        // What must be there is there, whatever it says.
        assert_eq!(
            conformed("ContainerPort", json!({"containerPort": 0, "hostPort": 0})),
            json!({"containerPort": 0})
        );
    }

    #[test]
    fn a_null_item_is_a_zero() {
        let container = json!({"name": "c", "args": [null, "a"], "ports": [null]});
        assert_eq!(conformed("Container", container), json!({"name": "c", "args": ["", "a"], "ports": [{}]}));
    }
}
