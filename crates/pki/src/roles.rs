//! The certificates that a cluster consists of.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, SystemTime};

use crate::reserved::NODES;
use crate::{Authority, CertificateRequest, Error, Identity, OwnKey, Subject, Usage, Validity};

/// The names under which Kubernetes' own API is known inside a cluster, and on its machine.
const API_NAMES: [&str; 4] = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"];
/// The name by which the API vouches for who asks, and of its files.
pub const FRONT_PROXY: &str = "front-proxy-client";
/// As long as the authority, for those who aren't renewed: the hosts of a cluster on one machine, which don't have the authority's key.
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

impl HostNames {
    /// Whom its certificate is for: `CN=system:node:NAME`, `O=system:nodes`.
    pub fn subject(&self) -> Subject {
        Subject { common_name: format!("system:node:{}", self.name), organization: Some(NODES.to_owned()) }
    }

    fn names(&self) -> Vec<String> {
        [self.name.as_str()].into_iter().chain(API_NAMES).map(str::to_owned).collect()
    }

    fn addresses(&self) -> [IpAddr; 4] {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        [self.address, localhost, self.virtual_address, self.first_service_address]
    }
}

/// By what it is decided whether a certificate is renewed, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// How long the new one lasts.
    pub life: Duration,
    /// How much earlier than at two thirds of that, by chance: see [`Validity::renewed_at`].
    pub early: u8,
    /// The time.
    pub now: SystemTime,
}

/// Whom the administrator's certificate is for.
pub fn admin_subject() -> Subject {
    Subject { common_name: "kubernetes-admin".to_owned(), organization: Some("system:masters".to_owned()) }
}

/// Whom the certificate is for by which the API vouches for who asks.
pub fn front_proxy_subject() -> Subject {
    Subject { common_name: FRONT_PROXY.to_owned(), organization: None }
}

impl Authority {
    /// A host's identity that lasts as long as the authority: `CN=system:node:NAME`, `O=system:nodes`, for server and client use.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn host_identity(&self, host: &HostNames, now: SystemTime) -> Result<Identity, Error> {
        self.issue(&host.subject(), &host.names(), &host.addresses(), Validity::years(now, YEARS))
    }

    /// The identity by which the API vouches to servers of aggregated APIs for who asks: `CN=front-proxy-client`, for
    /// client use. It lasts as long as the authority.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn front_proxy_identity(&self, now: SystemTime) -> Result<Identity, Error> {
        self.issue(&front_proxy_subject(), &[], &[], Validity::years(now, YEARS))
    }

    /// A host's certificate for a key that the host made: with the names that it has, whatever the request asks for.
    ///
    /// # Errors
    /// [`Error::Issue`] if the request is for anybody else.
    pub fn sign_host(
        &self,
        request: &CertificateRequest,
        host: &HostNames,
        validity: Validity,
    ) -> Result<String, Error> {
        self.sign_for(
            request,
            &host.subject(),
            host.names(),
            &host.addresses(),
            &[Usage::DigitalSignature, Usage::ClientAuth, Usage::ServerAuth],
            validity,
        )
    }

    /// The certificate of a [front proxy](Self::front_proxy_identity) for a key that its host made.
    ///
    /// # Errors
    /// [`Error::Issue`] if the request is for anybody else.
    pub fn sign_front_proxy(
        &self,
        request: &CertificateRequest,
        validity: Validity,
    ) -> Result<String, Error> {
        let usages = [Usage::DigitalSignature, Usage::ClientAuth];
        self.sign_for(request, &front_proxy_subject(), Vec::new(), &[], &usages, validity)
    }

    fn sign_for(
        &self,
        request: &CertificateRequest,
        subject: &Subject,
        names: Vec<String>,
        addresses: &[IpAddr],
        usages: &[Usage],
        validity: Validity,
    ) -> Result<String, Error> {
        let is_meant = request.common_name == subject.common_name
            && request.organizations.iter().eq(subject.organization.iter());
        if !is_meant {
            let why = format!("it would have to be for {} alone", subject.common_name);
            return Err(Error::issue(&request.common_name, why));
        }
        let granted = CertificateRequest {
            names,
            addresses: addresses.to_vec(),
            emails: Vec::new(),
            uris: Vec::new(),
            ..request.clone()
        };
        self.sign(&granted, usages, validity)
    }

    /// A host's identity by a key that is there.
    ///
    /// # Errors
    /// [`Error::Issue`], and [`Error::Unusable`].
    pub fn certify_host(
        &self,
        key: &OwnKey,
        host: &HostNames,
        validity: Validity,
    ) -> Result<Identity, Error> {
        key.identity(&self.sign_host(&key.request_read(&host.subject())?, host, validity)?)
    }

    /// A [front proxy](Self::front_proxy_identity)'s identity by a key that is there.
    ///
    /// # Errors
    /// [`Error::Issue`], and [`Error::Unusable`].
    pub fn certify_front_proxy(&self, key: &OwnKey, validity: Validity) -> Result<Identity, Error> {
        key.identity(&self.sign_front_proxy(&key.request_read(&front_proxy_subject())?, validity)?)
    }

    /// A host's identity anew, with the key that it has: by that others know the machine. `None` where it isn't [due](Validity::is_due), and
    /// is for the names and addresses that the host has.
    ///
    /// # Errors
    /// [`Error::Issue`], and [`Error::Unusable`].
    pub fn renew_host(
        &self,
        identity: &Identity,
        host: &HostNames,
        renewal: Renewal,
    ) -> Result<Option<Identity>, Error> {
        let wanted: (BTreeSet<String>, BTreeSet<IpAddr>) =
            (host.names().into_iter().collect(), host.addresses().into_iter().collect());
        let is_of_host = identity.names()? == wanted;
        self.renew(identity, is_of_host, renewal, |key, validity| self.certify_host(key, host, validity))
    }

    /// A [front proxy](Self::front_proxy_identity)'s identity anew, as [`renew_host`](Self::renew_host) does it.
    ///
    /// # Errors
    /// [`Error::Issue`], and [`Error::Unusable`].
    pub fn renew_front_proxy(
        &self,
        identity: &Identity,
        renewal: Renewal,
    ) -> Result<Option<Identity>, Error> {
        self.renew(identity, true, renewal, |key, validity| self.certify_front_proxy(key, validity))
    }

    fn renew(
        &self,
        identity: &Identity,
        is_right: bool,
        Renewal { life, early, now }: Renewal,
        certify: impl FnOnce(&OwnKey, Validity) -> Result<Identity, Error>,
    ) -> Result<Option<Identity>, Error> {
        let (own, authority) = (identity.validity()?, self.validity()?);
        if !own.is_due(authority, life, early, now) && (is_right || now < authority.from) {
            return Ok(None);
        }
        certify(&OwnKey::of(identity)?, Validity::lasting(now, life)).map(Some)
    }

    /// The administrator's identity that lasts as long as the authority: `CN=kubernetes-admin`, `O=system:masters`, for client use.
    ///
    /// # Errors
    /// [`Error::Issue`].
    pub fn admin_identity(&self, now: SystemTime) -> Result<Identity, Error> {
        self.issue(&admin_subject(), &[], &[], Validity::years(now, YEARS))
    }
}
