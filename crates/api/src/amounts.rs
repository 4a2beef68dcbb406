//! Amounts of several resources, and how much a pod asks for and may use.
//!
//! Follows `k8s.io/component-helpers/resource`.

use std::collections::BTreeMap;

use cel::Quantity;
use machinery::Object;
use serde_json::{Map, Value};

/// Amounts by resource, such as `cpu` and `memory`: a `ResourceList`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// The amounts in a JSON object; what is no quantity is left out.
    pub fn of(value: &Value) -> Self {
        let entries = value.as_object().into_iter().flatten();
        let parsed = entries.filter_map(|(resource, amount)| {
            Some((resource.clone(), Quantity::parse(amount.as_str()?).ok()?))
        });
        Amounts(parsed.collect())
    }

    /// The amount of one resource.
    pub fn get(&self, resource: &str) -> Option<&Quantity> {
        self.0.get(resource)
    }

    /// All of them, by the resources' names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Quantity)> {
        self.0.iter().map(|(resource, amount)| (resource.as_str(), amount))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets one amount.
    pub fn set(&mut self, resource: impl Into<String>, amount: Quantity) {
        self.0.insert(resource.into(), amount);
    }

    /// Adds to one amount.
    pub fn add(&mut self, resource: &str, amount: Quantity) {
        let sum = self.0.get(resource).map_or(amount, |is| *is + amount);
        self.0.insert(resource.to_owned(), sum);
    }

    /// Adds all of another's.
    pub fn add_all(&mut self, other: &Amounts) {
        other.iter().for_each(|(resource, amount)| self.add(resource, *amount));
    }

    /// Takes the larger one of each.
    pub fn raise(&mut self, other: &Amounts) {
        for (resource, amount) in other.iter() {
            if self.get(resource).is_none_or(|is| is < amount) {
                self.set(resource, *amount);
            }
        }
    }

    /// Keeps those that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Quantity) -> bool) {
        self.0.retain(|resource, amount| keep(resource, amount));
    }

    /// As a JSON object.
    pub fn to_value(&self) -> Value {
        let entries = self.0.iter().map(|(resource, amount)| (resource.clone(), amount.to_string().into()));
        Value::Object(entries.collect::<Map<_, _>>())
    }
}

/// What a pod asks for, and what it may use.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodResources {
    /// What it asks for.
    pub requests: Amounts,
    /// What it may use at most.
    pub limits: Amounts,
}

/// The resources of a whole pod: of all containers that run together, or of an init container where that is
/// more; the pod's own `resources` count before that.
pub fn pod_resources(pod: &Object, with_overhead: bool) -> PodResources {
    let null = Value::Null;
    let spec = pod.0.get("spec").unwrap_or(&null);
    let total = |part: &str| {
        let mut sum = Amounts::default();
        for container in list(spec, "containers") {
            sum.add_all(&Amounts::of(&container["resources"][part]));
        }
        // Sidecars run on from their turn: each init container runs beside those before it.
        let (mut sidecars, mut highest) = (Amounts::default(), Amounts::default());
        for container in list(spec, "initContainers") {
            let mut own = Amounts::of(&container["resources"][part]);
            if container["restartPolicy"] == "Always" {
                sum.add_all(&own);
                sidecars.add_all(&own);
                own = sidecars.clone();
            } else {
                own.add_all(&sidecars);
            }
            highest.raise(&own);
        }
        sum.raise(&highest);
        for (resource, amount) in Amounts::of(&spec["resources"][part]).iter() {
            sum.set(resource, *amount);
        }
        sum
    };
    let mut resources = PodResources { requests: total("requests"), limits: total("limits") };
    if with_overhead {
        let overhead = Amounts::of(&spec["overhead"]);
        resources.requests.add_all(&overhead);
        for (resource, amount) in overhead.iter() {
            // A resource without a limit stays without one.
            if resources.limits.get(resource).is_some() {
                resources.limits.add(resource, *amount);
            }
        }
    }
    resources
}

fn list<'a>(spec: &'a Value, field: &str) -> &'a [Value] {
    spec[field].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_needs_its_containers_together_or_its_largest_init_container() {
        let container = |cpu: &str| json!({"resources": {"requests": {"cpu": cpu}, "limits": {"cpu": "2"}}});
        let mut sidecar = container("100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = |init: Vec<Value>| {
            let spec = json!({"containers": [container("200m"), container("300m")], "initContainers": init,
                "overhead": {"cpu": "50m", "memory": "1Mi"}});
            Object::from_value(json!({ "spec": spec })).unwrap()
        };
        let cpu = |init: Vec<Value>, overhead| {
            pod_resources(&pod(init), overhead).requests.get("cpu").unwrap().to_string()
        };
        assert_eq!(cpu(vec![], false), "500m");
        assert_eq!(cpu(vec![], true), "550m");
        assert_eq!(cpu(vec![container("400m")], false), "500m");
        assert_eq!(cpu(vec![container("900m")], false), "900m");
        assert_eq!(cpu(vec![sidecar.clone()], false), "600m");
        assert_eq!(cpu(vec![sidecar.clone(), container("900m")], false), "1");
        let limits = pod_resources(&pod(vec![]), true).limits;
        assert_eq!(limits.to_value(), json!({"cpu": "4050m"}), "no limit of memory, and none by overhead");
    }
}
