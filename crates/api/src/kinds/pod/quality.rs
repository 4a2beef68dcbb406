//! The quality-of-service class of a pod: `pkg/apis/core/v1/helper/qos` upstream.

use cel::Quantity;
use serde_json::Value;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(super) fn of_pod(spec: &Value) -> &'static str {
    // What the pod says of itself counts instead of what its containers do, also where that is nothing (KEP-2837).
    let whole = Some(spec).filter(|spec| spec["resources"].is_object());
    let lists = ["initContainers", "containers"].into_iter().filter(|_| whole.is_none());
    let containers = whole.into_iter().chain(lists.filter_map(|list| spec[list].as_array()).flatten());
    let mut guaranteed = true;
    let mut anything = false;
    for container in containers {
        for resource in ["cpu", "memory"] {
            let limit = amount(&container["resources"]["limits"][resource]);
            let request = amount(&container["resources"]["requests"][resource]);
            anything |= limit.is_some() || request.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (anything, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

fn amount(value: &Value) -> Option<Quantity> {
    let zero = Quantity::default();
    value.as_str().and_then(|text| Quantity::parse(text).ok()).filter(|amount| *amount != zero)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn classes_follow_requests_and_limits() {
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let of_whole = |whole: serde_json::Value| {
            of_pod(&json!({"resources": whole, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}))
        };
        assert_eq!(of_whole(json!({})), "BestEffort");
        assert_eq!(of_whole(json!({"limits": full})), "Guaranteed");
        assert_eq!(of_whole(json!({"limits": full, "requests": {"cpu": "500m"}})), "Burstable");
        assert_eq!(of_whole(serde_json::Value::Null), "Burstable");
        for (resources, class) in [
            (json!({}), "BestEffort"),
            (json!({"requests": {"cpu": "0"}}), "BestEffort"),
            (json!({"requests": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": {"cpu": "1"}}), "Burstable"),
            (json!({"limits": full}), "Guaranteed"),
            (json!({"limits": full, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
            (json!({"limits": full, "requests": {"cpu": "500m"}}), "Burstable"),
        ] {
            assert_eq!(of_pod(&json!({"containers": [{"resources": resources}]})), class, "{resources}");
        }
    }
}
