//! The certificates that a cluster consists of.

use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use crate::{Authority, Error, Identity, Subject, Validity};

/// The names under which Kubernetes' own API is known inside a cluster, and on its machine.
const API_NAMES: [&str; 4] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
/// Ten years, as the authority: renewal is not a host's business yet.
const YEARS: u32 = 10;

/// A host's name and the addresses under which it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostNames {
    /// The host's name, which is also its node's.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// The API's virtual address.
    pub virtual_address: IpAddr,
    /// The first address of the services, which is the API's own Service.
    pub first_service_address: IpAddr,
}

impl Authority {
    /// A host's identity: `CN=system:node:NAME`, `O=system:nodes`, for server and client use.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn host_identity(&self, host: &HostNames, now: SystemTime) -> Result<Identity, Error> {
        let subject = Subject {
            common_name: format!("system:node:{}", host.name),
            organization: Some("system:nodes".to_owned()),
        };
        let names: Vec<String> =
            [host.name.as_str()].into_iter().chain(API_NAMES).map(str::to_owned).collect();
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let addresses = [host.address, localhost, host.virtual_address, host.first_service_address];
        self.issue(&subject, &names, &addresses, Validity::years(now, YEARS))
    }

    /// The identity by which the API vouches to servers of aggregated APIs for who asks: `CN=front-proxy-client`, for
    /// client use.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn front_proxy_identity(&self, now: SystemTime) -> Result<Identity, Error> {
        let subject = Subject { common_name: "front-proxy-client".to_owned(), organization: None };
        self.issue(&subject, &[], &[], Validity::years(now, YEARS))
    }

    /// The administrator's identity: `CN=kubernetes-admin`, `O=system:masters`, for client use.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn admin_identity(&self, now: SystemTime) -> Result<Identity, Error> {
        let subject = Subject {
            common_name: "kubernetes-admin".to_owned(),
            organization: Some("system:masters".to_owned()),
        };
        self.issue(&subject, &[], &[], Validity::years(now, YEARS))
    }
}
