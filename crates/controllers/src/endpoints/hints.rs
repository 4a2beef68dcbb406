//! Hints: whose traffic an endpoint is for, by zone or node.
//!
//! Follows `staging/src/k8s.io/endpointslice`: `trafficdist` (KEP-4444, KEP-3015) for a service's `trafficDistribution`, and
//! `topologycache` (KEP-2433) for the annotation `service.kubernetes.io/topology-mode`, by which each zone gets endpoints in
//! proportion to its processors. Upstream keeps what it once gave until a zone is overloaded; here it follows from what there is,
//! and an endpoint that was given to another zone is the first to be given there again.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForNode, ForZone};
use machinery::Quantity;
use objects::Occurrence;

use super::slices::{is_ready, target_name};
use crate::index::Group;
use crate::kept::Node;
use crate::node::{lease, ready_status};
use crate::tables::Index;
use crate::view::View;

const MODE: &str = "service.kubernetes.io/topology-mode";
/// The annotation's former name, which counts first.
const FORMER: &str = "service.kubernetes.io/topology-aware-hints";
pub(super) const ZONE: &str = "topology.kubernetes.io/zone";
const CONTROL_PLANE: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// By so much more than its part an endpoint may get.
const OVERLOAD: f64 = 0.2;

/// Whose traffic a service's endpoints are for.
pub(super) enum Distribution {
    /// Everybody's.
    Anywhere,
    /// That of their zone, and of their node where that is asked for.
    Near { nodes: bool },
    /// That of a zone each, so that all zones get their part.
    Parts,
}

/// Whose traffic a service's endpoints are for: the annotation counts before the field.
pub(super) fn distribution(service: &Service, spec: &ServiceSpec) -> Distribution {
    if in_parts(service) {
        return Distribution::Parts;
    }
    match spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") => Distribution::Near { nodes: false },
        Some("PreferSameNode") => Distribution::Near { nodes: true },
        _ => Distribution::Anywhere,
    }
}

fn in_parts(service: &Service) -> bool {
    let annotations = service.metadata.annotations.as_ref();
    let of = |name: &str| annotations.and_then(|annotations| annotations.get(name));
    of(FORMER).or_else(|| of(MODE)).is_some_and(|mode| mode == "Auto" || mode == "auto")
}

/// Services whose endpoints are for zones in proportion to what the zones have: all of them under one value.
pub(super) struct InParts;

impl InParts {
    pub const ALL: &str = "";
}

impl Group for InParts {
    type Of = Service;

    fn values(service: &Service, each: &mut dyn FnMut(&str)) {
        if in_parts(service) {
            each(InParts::ALL);
        }
    }
}

/// What the nodes of each zone have.
#[derive(Default)]
pub(crate) struct Capacity {
    /// Thousandths of a processor, and how many nodes have them.
    zones: BTreeMap<String, (i128, usize)>,
    /// Nodes that don't say where they are, or what they have.
    unknown: usize,
}

/// What a node adds to its zone; nothing if it doesn't count, and no zone if it doesn't say.
#[derive(PartialEq)]
pub(super) enum Part<'a> {
    None,
    Unknown,
    Of(&'a str, i128),
}

/// What a node adds to its zone: those that are ready, and that are not there to control the cluster alone. Hosts of this program
/// have the role, and run pods all the same.
pub(super) fn part(node: &Node) -> Part<'_> {
    let labels = node.metadata.labels.as_ref();
    let controls = CONTROL_PLANE.iter().any(|role| labels.is_some_and(|labels| labels.contains_key(*role)));
    if (controls && !lease::beats(node)) || ready_status(node) != "True" {
        return Part::None;
    }
    let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
    let status = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    let cpu = status.and_then(|allocatable| Quantity::parse(&allocatable.cpu.as_ref()?.0).ok());
    match (zone, cpu.map(|cpu| cpu.milli()).filter(|milli| *milli > 0)) {
        (Some(zone), Some(milli)) => Part::Of(zone, milli),
        _ => Part::Unknown,
    }
}

impl Index for Capacity {
    type Of = Node;

    fn take(&mut self, old: Option<&Arc<Node>>, new: Option<&Arc<Node>>) {
        match old.map_or(Part::None, |node| part(node)) {
            Part::None => {}
            Part::Unknown => self.unknown -= 1,
            Part::Of(zone, milli) => {
                if let Some((all, nodes)) = self.zones.get_mut(zone) {
                    (*all, *nodes) = (*all - milli, *nodes - 1);
                    if *nodes == 0 {
                        self.zones.remove(zone);
                    }
                }
            }
        }
        match new.map_or(Part::None, |node| part(node)) {
            Part::None => {}
            Part::Unknown => self.unknown += 1,
            Part::Of(zone, milli) => {
                let (all, nodes) = self.zones.entry(zone.to_owned()).or_default();
                (*all, *nodes) = (*all + milli, *nodes + 1);
            }
        }
    }
}

impl Capacity {
    /// The part of each zone in the whole.
    fn parts(&self) -> Result<BTreeMap<&str, f64>, String> {
        if self.unknown > 0 || self.zones.len() < 2 {
            return Err(
                "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
                    .to_owned(),
            );
        }
        let whole: i128 = self.zones.values().map(|(milli, _)| milli).sum();
        let part = |milli: i128| milli as f64 / whole as f64;
        Ok(self.zones.iter().map(|(zone, (milli, _))| (zone.as_str(), part(*milli))).collect())
    }
}

/// Gives the endpoints of one address family their hints. What to report about the service, if its endpoints got hints for the
/// first time, or get none although that is asked for.
pub(super) fn give(
    view: &View,
    service: &Service,
    distribution: &Distribution,
    family: &str,
    endpoints: &mut [&mut Endpoint],
    existing: &[&Arc<EndpointSlice>],
) -> Option<Occurrence> {
    let mut ready: Vec<&mut Endpoint> =
        endpoints.iter_mut().map(|e| &mut **e).filter(|e| is_ready(e)).collect();
    match distribution {
        Distribution::Anywhere => None,
        Distribution::Near { nodes } => {
            for endpoint in ready {
                let node = endpoint.node_name.as_deref().filter(|_| *nodes);
                endpoint.hints = hints(endpoint.zone.as_deref(), node);
            }
            None
        }
        Distribution::Parts => {
            let known: HashMap<String, &str> = existing
                .iter()
                .filter(|slice| slice.address_type == family)
                .flat_map(|slice| slice.endpoints.iter().flatten())
                .filter_map(|endpoint| Some((target_name(endpoint)?, for_zone(endpoint)?)))
                .collect();
            let parts = view.index::<Capacity>().map(Capacity::parts)?;
            let told = match parts.and_then(|parts| share(&parts, &mut ready, &known)) {
                Ok(()) if !known.is_empty() || ready.is_empty() => return None,
                Ok(()) => {
                    (false, "TopologyAwareHintsEnabled", "Topology Aware Hints has been enabled".to_owned())
                }
                Err(why) => (true, "TopologyAwareHintsDisabled", why),
            };
            let (warning, reason, what) = told;
            Some(Occurrence::of(service, warning, reason, format!("{what}, addressType: {family}")))
        }
    }
}

fn hints(zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let for_zones = zone.map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_zones, for_nodes })
}

fn for_zone(endpoint: &Endpoint) -> Option<&str> {
    Some(endpoint.hints.as_ref()?.for_zones.as_ref()?.first()?.name.as_str())
}

/// Gives each endpoint to a zone: to its own, unless that has too many and another one too few.
fn share(
    parts: &BTreeMap<&str, f64>,
    endpoints: &mut [&mut Endpoint],
    known: &HashMap<String, &str>,
) -> Result<(), String> {
    let (count, zones) = (endpoints.len(), parts.len());
    let of = |why: &str| format!("{why} ({count} endpoints, {zones} zones)");
    if zones > count {
        return Err(of("Insufficient number of endpoints"));
    }
    let least = |part: f64| (part * count as f64 / (1.0 + OVERLOAD)).ceil();
    if parts.values().map(|part| least(*part)).sum::<f64>() > count as f64 {
        return Err(of(
            "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold",
        ));
    }
    if endpoints.iter().any(|endpoint| endpoint.zone.as_deref().is_none_or(str::is_empty)) {
        return Err("One or more endpoints do not have a zone specified".to_owned());
    }
    let mut own: BTreeMap<&str, usize> = BTreeMap::new();
    for zone in endpoints.iter().filter_map(|endpoint| endpoint.zone.as_deref()) {
        *own.entry(zone).or_default() += 1;
    }
    let left_over = parts.iter().map(|(zone, part)| {
        let has = own.get(zone).copied().unwrap_or(0) as f64;
        (*zone, has - (part * count as f64).max(least(*part)))
    });
    let (mut gives, mut takes) = exchange(left_over.collect());
    // A zone without nodes that count gives and takes nothing: its endpoints keep their own zone's hint, as upstream.
    for endpoint in endpoints.iter_mut() {
        endpoint.hints = hints(endpoint.zone.as_deref(), None);
    }
    for again in [true, false] {
        for endpoint in endpoints.iter_mut() {
            let zone = endpoint.zone.as_deref().unwrap_or_default();
            let Some(left) = gives.get_mut(zone).filter(|left| **left > 0) else { continue };
            if for_zone(endpoint) != Some(zone) {
                continue;
            }
            let before = target_name(endpoint).and_then(|name| known.get(&name).copied());
            let to = match again {
                true => before.and_then(|zone| takes.get_key_value(zone)).filter(|(_, left)| **left > 0),
                false => takes.iter().find(|(_, left)| **left > 0),
            };
            let Some((to, _)) = to.map(|(zone, left)| (zone.clone(), *left)) else { continue };
            *left -= 1;
            takes.entry(to.clone()).and_modify(|left| *left -= 1);
            endpoint.hints = hints(Some(&to), None);
        }
    }
    Ok(())
}

/// How many endpoints each zone gives away, and gets, by how many it has too many (negative: too few).
fn exchange(mut left_over: BTreeMap<&str, f64>) -> (HashMap<String, usize>, BTreeMap<String, usize>) {
    let (mut gives, mut takes) = (HashMap::new(), BTreeMap::new());
    loop {
        let most = left_over.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, left)| (*zone, *left));
        let least = left_over.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, left)| (*zone, -*left));
        let (Some((from, many)), Some((to, few))) = (most, least) else { break };
        if many < 0.5 || few < 0.5 || (many < 1.0 && few < 1.0) {
            break;
        }
        *gives.entry(from.to_owned()).or_insert(0) += 1;
        *takes.entry(to.to_owned()).or_insert(0) += 1;
        left_over.entry(from).and_modify(|left| *left -= 1.0);
        left_over.entry(to).and_modify(|left| *left += 1.0);
    }
    (gives, takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(name: usize, zone: &str) -> Endpoint {
        serde_json::from_value(serde_json::json!({
            "addresses": ["10.0.0.1"], "zone": zone, "targetRef": {"name": format!("p{name}")},
            "conditions": {"ready": true},
        }))
        .unwrap()
    }

    /// The zones that the endpoints of zones are for.
    fn shared(
        parts: &[(&'static str, f64)],
        zones: &[&str],
        known: &[(usize, &'static str)],
    ) -> Result<String, String> {
        let mut endpoints: Vec<_> = zones.iter().enumerate().map(|(n, zone)| endpoint(n, zone)).collect();
        let known = known.iter().map(|(n, zone)| (format!("p{n}"), *zone)).collect();
        share(&parts.iter().copied().collect(), &mut endpoints.iter_mut().collect::<Vec<_>>(), &known)?;
        Ok(endpoints.iter().map(|endpoint| for_zone(endpoint).unwrap()).collect::<Vec<_>>().join(""))
    }

    #[test]
    fn every_zone_gets_its_part() {
        let even = [("a", 0.5), ("b", 0.5)];
        assert_eq!(shared(&even, &["a", "b"], &[]), Ok("ab".into()));
        assert_eq!(shared(&even, &["a", "a", "a", "a"], &[]), Ok("bbaa".into()));
        assert_eq!(shared(&even, &["a", "a", "a", "a"], &[(2, "b"), (3, "b")]), Ok("aabb".into()), "again");
        let seven = ["a", "a", "a", "a", "b", "b", "b"];
        assert_eq!(shared(&even, &seven, &[]), Ok("aaaabbb".into()), "less than one is nothing to give");
        let uneven = [("a", 0.75), ("b", 0.25)];
        assert_eq!(shared(&uneven, &["b", "b", "b", "b"], &[]), Ok("aaab".into()));
        let three = [("a", 1.0 / 3.0), ("b", 1.0 / 3.0), ("c", 1.0 / 3.0)];
        assert_eq!(shared(&three, &["a", "a", "a", "b", "b", "c"], &[]), Ok("caabbc".into()));
    }

    #[test]
    fn where_that_cannot_be_nobody_gets_any() {
        let even = [("a", 0.5), ("b", 0.5)];
        let refused = |why: &str| Err(why.to_owned());
        assert_eq!(
            shared(&even, &["a"], &[]),
            refused("Insufficient number of endpoints (1 endpoints, 2 zones)")
        );
        assert_eq!(
            shared(&even, &["a", ""], &[]),
            refused("One or more endpoints do not have a zone specified")
        );
        let uneven = [("a", 0.9), ("b", 0.1)];
        let too_few = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold \
                       (2 endpoints, 2 zones)";
        assert_eq!(shared(&uneven, &["a", "b"], &[]), refused(too_few));
    }
}
