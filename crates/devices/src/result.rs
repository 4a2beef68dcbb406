//! What is written into a claim's status.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceRequestAllocationResult,
};

use crate::allocate::Chosen;
use crate::ask::{Alternative, Ask};
use crate::inventory::Place;

pub(crate) fn of<'a>(
    ask: &Ask,
    chosen: impl Iterator<Item = &'a Chosen<'a>> + Clone,
    place: Place<'_>,
) -> AllocationResult {
    let results = chosen.clone().map(|Chosen { alternative, candidate, .. }| DeviceRequestAllocationResult {
        request: alternative.name.clone(),
        driver: candidate.reachable.driver.to_owned(),
        pool: candidate.reachable.pool.to_owned(),
        device: candidate.device.name.clone(),
        admin_access: alternative.admin.then_some(true),
        tolerations: alternative.tolerations.clone(),
        ..DeviceRequestAllocationResult::default()
    });
    let results: Vec<_> = results.collect();
    let config = config(ask, chosen.clone().map(|chosen| chosen.alternative));
    AllocationResult {
        devices: Some(DeviceAllocationResult {
            config: Some(config).filter(|config| !config.is_empty()),
            results: Some(results),
        }),
        node_selector: selector(chosen, place),
        ..AllocationResult::default()
    }
}

/// First what the classes say of the requests that were met by them, then what the claim says.
fn config<'a>(
    ask: &Ask,
    met: impl Iterator<Item = &'a Alternative> + Clone,
) -> Vec<DeviceAllocationConfiguration> {
    let mut seen = BTreeSet::new();
    let once = met.clone().filter(|alternative| seen.insert(alternative.name.as_str()));
    let mut config: Vec<_> = Vec::new();
    for alternative in once {
        let of_class = alternative.class.spec.config.iter().flatten();
        config.extend(of_class.map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque.clone(),
            requests: Some(vec![alternative.name.clone()]),
            source: "FromClass".to_owned(),
        }));
    }
    let of_claim = ask.spec.devices.iter().flat_map(|devices| devices.config.iter().flatten());
    let meant = of_claim.filter(|config| {
        let requests = config.requests.as_deref();
        requests.is_none_or(<[String]>::is_empty)
            || met.clone().any(|alternative| alternative.is_among(requests))
    });
    config.extend(meant.map(|config| DeviceAllocationConfiguration {
        opaque: config.opaque.clone(),
        requests: config.requests.clone(),
        source: "FromClaim".to_owned(),
    }));
    config
}

/// From where all of the devices are reached; nothing if that is everywhere.
fn selector<'a>(chosen: impl Iterator<Item = &'a Chosen<'a>>, place: Place<'_>) -> Option<NodeSelector> {
    let mut term = NodeSelectorTerm::default();
    for Chosen { candidate, .. } in chosen {
        let spec = &candidate.slice.spec;
        let (node, selector) = match spec.per_device_node_selection {
            Some(true) => (&candidate.device.node_name, &candidate.device.node_selector),
            _ => (&spec.node_name, &spec.node_selector),
        };
        if node.is_some() {
            let this_node = NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "In".to_owned(),
                values: Some(vec![place.name.to_owned()]),
            };
            let term = NodeSelectorTerm { match_fields: Some(vec![this_node]), match_expressions: None };
            return Some(NodeSelector { node_selector_terms: vec![term] });
        }
        // Of a selector of devices there is one term (validation).
        for other in selector.iter().flat_map(|selector| &selector.node_selector_terms) {
            add(&mut term.match_expressions, &other.match_expressions);
            add(&mut term.match_fields, &other.match_fields);
        }
    }
    let asks = term.match_expressions.is_some() || term.match_fields.is_some();
    asks.then(|| NodeSelector { node_selector_terms: vec![term] })
}

fn add(to: &mut Option<Vec<NodeSelectorRequirement>>, more: &Option<Vec<NodeSelectorRequirement>>) {
    for requirement in more.iter().flatten() {
        let all = to.get_or_insert_default();
        if !all.contains(requirement) {
            all.push(requirement.clone());
        }
    }
}
