//! What a claim asks for, with the classes that it names, read and compiled once.

use std::sync::Arc;

use cel::Quantity;
use k8s_openapi::api::core::v1::{Taint, Toleration};
use k8s_openapi::api::resource::v1::{
    CapacityRequirements, Device, DeviceClass, DeviceConstraint, DeviceSelector, DeviceToleration,
    ResourceClaimSpec,
};

use crate::selector::Selector;

/// Effects of a device's taint that keep claims away.
const EFFECTS: [&str; 2] = ["NoSchedule", "NoExecute"];

/// What a claim asks for.
#[derive(Debug)]
pub struct Ask {
    pub(crate) spec: ResourceClaimSpec,
    /// Of each request what is as good, the best first.
    pub(crate) requests: Vec<Vec<Alternative>>,
}

/// Two ask for the same if their claims do, by the same classes as they are.
impl PartialEq for Ask {
    fn eq(&self, other: &Self) -> bool {
        let classes = |ask: &'_ Ask| -> Vec<*const DeviceClass> {
            ask.requests.iter().flatten().map(|alternative| Arc::as_ptr(&alternative.class)).collect()
        };
        self.spec == other.spec && classes(self) == classes(other)
    }
}

/// One way to meet a request.
#[derive(Debug)]
pub(crate) struct Alternative {
    /// The request's name; of one of several, `REQUEST/ALTERNATIVE`.
    pub name: String,
    pub class: Arc<DeviceClass>,
    selectors: Vec<Selector>,
    /// All devices that are meant, or a number of them.
    pub count: Option<usize>,
    /// It takes devices from nobody.
    pub admin: bool,
    pub tolerations: Option<Vec<DeviceToleration>>,
    capacity: Vec<(String, Quantity)>,
}

/// What a request and one of several alternatives have in common.
struct Wanted<'a> {
    class: &'a str,
    selectors: &'a Option<Vec<DeviceSelector>>,
    mode: Option<&'a str>,
    count: Option<i64>,
    tolerations: &'a Option<Vec<DeviceToleration>>,
    capacity: Option<&'a CapacityRequirements>,
}

impl Ask {
    /// What a claim asks for.
    ///
    /// # Errors
    /// Why nothing can be allocated for it, whatever the node.
    pub fn of(
        spec: &ResourceClaimSpec,
        class: impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Self, String> {
        let requests = spec.devices.iter().flat_map(|devices| devices.requests.iter().flatten());
        let read = requests.map(|request| {
            let name = &request.name;
            let exactly = request.exactly.as_ref().map(|exactly| {
                let wanted = Wanted {
                    class: &exactly.device_class_name,
                    selectors: &exactly.selectors,
                    mode: exactly.allocation_mode.as_deref(),
                    count: exactly.count,
                    tolerations: &exactly.tolerations,
                    capacity: exactly.capacity.as_ref(),
                };
                wanted.read(name.clone(), exactly.admin_access == Some(true), &class)
            });
            let first = request.first_available.iter().flatten().map(|one| {
                let wanted = Wanted {
                    class: &one.device_class_name,
                    selectors: &one.selectors,
                    mode: one.allocation_mode.as_deref(),
                    count: one.count,
                    tolerations: &one.tolerations,
                    capacity: one.capacity.as_ref(),
                };
                wanted.read(format!("{name}/{}", one.name), false, &class)
            });
            let alternatives: Result<Vec<_>, String> = exactly.into_iter().chain(first).collect();
            match alternatives {
                Ok(none) if none.is_empty() => {
                    Err(format!("request {name}: it asks for nothing that is known"))
                }
                read => read,
            }
        });
        Ok(Ask { requests: read.collect::<Result<_, _>>()?, spec: spec.clone() })
    }

    pub(crate) fn constraints(&self) -> impl Iterator<Item = &DeviceConstraint> {
        self.spec.devices.iter().flat_map(|devices| devices.constraints.iter().flatten())
    }
}

impl Wanted<'_> {
    fn read(
        self,
        name: String,
        admin: bool,
        class: impl Fn(&str) -> Option<Arc<DeviceClass>>,
    ) -> Result<Alternative, String> {
        let found = class(self.class)
            .ok_or_else(|| format!("request {name}: device class {} does not exist", self.class))?;
        let count = match self.mode.unwrap_or("ExactCount") {
            "ExactCount" => Some(usize::try_from(self.count.unwrap_or(1)).unwrap_or(0)),
            "All" => None,
            mode => return Err(format!("request {name}: unsupported count mode {mode}")),
        };
        let of_class = found.spec.selectors.iter().flatten();
        let texts = of_class.chain(self.selectors.iter().flatten()).filter_map(|one| one.cel.as_ref());
        let selectors = texts.map(|cel| Selector::compile(&cel.expression)).collect::<Result<_, _>>()?;
        let capacity = self.capacity.iter().flat_map(|capacity| capacity.requests.iter().flatten());
        let capacity =
            capacity.filter_map(|(name, least)| Some((name.clone(), Quantity::parse(&least.0).ok()?)));
        Ok(Alternative {
            selectors,
            count,
            admin,
            tolerations: self.tolerations.clone(),
            capacity: capacity.collect(),
            class: found,
            name,
        })
    }
}

impl Alternative {
    /// Whether a device fits the request, allocated or not.
    ///
    /// # Errors
    /// Why nobody can say.
    pub fn means(&self, driver: &str, device: &Device) -> Result<bool, String> {
        let can_be = device.allow_multiple_allocations != Some(true)
            && device.binding_conditions.as_ref().is_none_or(Vec::is_empty)
            && self.tolerates(device)
            && self.is_large_enough(device);
        if !can_be {
            return Ok(false);
        }
        for selector in &self.selectors {
            if !selector.means(driver, device)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a constraint or a configuration that names these requests means it; without names it means all.
    pub fn is_among(&self, requests: Option<&[String]>) -> bool {
        let request = self.name.split('/').next().unwrap_or_default();
        requests.is_none_or(|requests| {
            requests.is_empty() || requests.iter().any(|named| *named == self.name || named == request)
        })
    }

    fn is_large_enough(&self, device: &Device) -> bool {
        self.capacity.iter().all(|(name, least)| {
            let capacity = device.capacity.as_ref().and_then(|capacity| capacity.get(name));
            let capacity = capacity.and_then(|capacity| Quantity::parse(&capacity.value.0).ok());
            capacity.is_some_and(|capacity| capacity >= *least)
        })
    }

    fn tolerates(&self, device: &Device) -> bool {
        let mut taints =
            device.taints.iter().flatten().filter(|taint| EFFECTS.contains(&taint.effect.as_str()));
        taints.all(|taint| {
            let taint = Taint {
                key: taint.key.clone(),
                value: taint.value.clone(),
                effect: taint.effect.clone(),
                time_added: None,
            };
            self.tolerations.iter().flatten().any(|one| {
                let toleration = Toleration {
                    key: one.key.clone(),
                    operator: one.operator.clone(),
                    value: one.value.clone(),
                    effect: one.effect.clone(),
                    toleration_seconds: None,
                };
                objects::tolerates(&toleration, &taint)
            })
        })
    }
}
