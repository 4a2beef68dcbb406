//! `ServiceCIDR`.

use ipnet::IpNet;
use machinery::rules::{Column, Rules, age};
use machinery::{Cause, Faults, Object, network_of};
use serde_json::Value;

use crate::kinds::field::{self, items, network, part, paths};

pub(crate) struct ServiceCidr;

impl Rules for ServiceCidr {
    fn looks_at_changes(&self) -> bool {
        false
    }

    fn validate(&self, object: &Object, faults: &mut Faults) {
        let cidrs = &part(object, "spec")["cidrs"];
        if !field::require(cidrs, "spec.cidrs", "at least one CIDR required", faults) {
            return;
        }
        let networks: Vec<IpNet> =
            items(cidrs).iter().filter_map(|cidr| network_of(cidr.as_str()?)).collect();
        if items(cidrs).len() > 2 {
            faults.push(Cause::invalid("spec.cidrs", cidrs, "may only hold up to 2 values"));
        } else if let [IpNet::V4(_), IpNet::V4(_)] | [IpNet::V6(_), IpNet::V6(_)] = networks[..] {
            let why =
                "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96";
            faults.push(Cause::invalid("spec.cidrs", cidrs, why));
        }
        for (path, cidr) in paths(cidrs, "spec.cidrs") {
            if network(cidr, &path, faults).is_some_and(|network| network != network.trunc()) {
                faults.push(Cause::invalid(path, cidr, "must have no bits set behind the prefix"));
            }
        }
    }

    fn validate_update(&self, _subresource: &str, object: &Object, old: &Object, faults: &mut Faults) {
        let (new, before) = (items(&part(object, "spec")["cidrs"]), items(&part(old, "spec")["cidrs"]));
        // One family may get the other beside it.
        if new.len() == 2 && before.len() == 1 && new[0] == before[0] {
            self.validate(object, faults);
        } else if new.len() == before.len() {
            for (index, cidr) in new.iter().enumerate().filter(|(index, cidr)| before[*index] != **cidr) {
                faults.push(Cause::invalid(format!("spec.cidrs[{index}]"), cidr, "field is immutable"));
            }
        } else {
            field::immutable("spec.cidrs", object, old, faults);
        }
    }

    fn columns(&self) -> &'static [Column] {
        const { &[Column::text("Name"), Column::text("CIDRs"), Column::text("Age")] }
    }

    fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let cidrs: Vec<&str> =
            items(&part(object, "spec")["cidrs"]).iter().filter_map(Value::as_str).collect();
        vec![object.name().into(), cidrs.join(",").into(), age(object, now)]
    }
}
