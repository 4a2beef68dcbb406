//! Certificates of API servers: whether they are for the address at which they are asked.

use std::collections::BTreeSet;

use super::{Findings, MOST_ADDRESSES};
use crate::read::{Host, Program, endpoint, is_reachable};
use crate::timers::instances;

/// The addresses and names at which clients ask, that no host has for itself.
fn asked(hosts: &[Host]) -> BTreeSet<String> {
    let moving = instances(hosts).into_iter().flat_map(|(_, _, one)| one.addresses.clone());
    let endpoints = hosts.iter().filter_map(|host| host.value(Program::ApiServer, "control-plane-endpoint"));
    let all: BTreeSet<String> = moving
        .chain(endpoints.map(|text| endpoint(text).0))
        .filter(|address| is_reachable(address))
        .collect();
    all.into_iter().take(MOST_ADDRESSES).collect()
}

pub(super) fn check(hosts: &[Host], findings: &mut Findings) {
    let names = |host: &Host| {
        let told = host.value(Program::K3s, "tls-san").unwrap_or_default();
        told.split(',').map(str::to_owned).collect::<BTreeSet<String>>()
    };
    let hosts_with_names: Vec<(&Host, BTreeSet<String>)> =
        hosts.iter().map(|host| (host, names(host))).collect();
    for address in asked(hosts) {
        for (host, names) in &hosts_with_names {
            // Other servers' certificates (etcd's, kubelets') are asked at other addresses.
            let of_api =
                host.certificates.iter().filter(|of| of.names.iter().any(|name| name == "kubernetes"));
            for certificate in of_api.filter(|of| !of.names.contains(&address)) {
                let what = format!(
                    "the API server's certificate isn't for {address}: clients that ask there refuse it"
                );
                findings.fatal(
                    &certificate.file,
                    what,
                    format!("issue it again with {address} among its subject alternative names"),
                );
            }
            let Some(server) = host.setting(Program::K3s, "").filter(|of| of.value == "server") else {
                continue;
            };
            if !names.contains(&address) {
                let what = format!(
                    "`tls-san` lacks {address}: the API server's certificate isn't for it, and clients that ask there refuse it"
                );
                findings.fatal(&server.file, what, format!("add {address} to tls-san on every server"));
            }
        }
        let kubeadm = hosts.iter().find_map(|host| host.setting(Program::ApiServer, "cert-sans"));
        let endpoint_of =
            hosts.iter().find_map(|host| host.value(Program::ApiServer, "control-plane-endpoint"));
        let is_endpoint = endpoint_of.is_some_and(|text| endpoint(text).0 == address);
        if let Some(told) =
            kubeadm.filter(|told| !is_endpoint && !told.value.split(',').any(|name| name == address))
        {
            let what = format!(
                "certSANs lacks {address}, and controlPlaneEndpoint is another: clients that ask there refuse the certificate"
            );
            findings.fatal(&told.file, what, format!("add {address} to apiServer.certSANs"));
        }
    }
}
