//! What the containers of a pod share: what it is to be, and how it is held and connected.

use std::net::IpAddr;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::PodHost;
use super::handler::Handler;
use super::sysctls::{OfPod, sysctls};
use crate::addresses::HostPort;
use crate::oci::{AppArmor, Mapping, Namespace, NamespaceKind, Wanted, refused_by_app_armor};
use crate::pod::{Failure, domain, hostname, target, uid};
use crate::runtime::{RunError, Shape, Which};

/// The longest name that Linux takes.
const LONGEST_HOSTNAME: usize = 63;

/// Whether a pod asks for something of the host's instead of its own.
pub(super) fn asks(pod: &Pod, what: impl Fn(&PodSpec) -> Option<bool>) -> bool {
    pod.spec.as_ref().and_then(what) == Some(true)
}

pub(super) fn sees_host_processes(pod: &Pod) -> bool {
    asks(pod, |spec| spec.host_pid)
}

impl PodHost {
    /// What a pod's sandbox is to be, where its containers share one. Blocks a moment, for what a disk has in memory.
    pub(super) fn wanted_sandbox(&self, pod: &Pod) -> Result<Shape, String> {
        Ok(match self.handler(pod, &self.store.snapshot())? {
            Handler::Host => Shape::Process,
            Handler::Oci => Shape::Own(Box::new(self.sandbox(pod)?)),
            Handler::Foreign => Shape::Foreign(Box::new(self.foreign_sandbox(pod)?)),
        })
    }

    /// What the sandbox of a pod is to be.
    ///
    /// # Errors
    /// What of it this host can't do.
    pub(super) fn sandbox(&self, pod: &Pod) -> Result<Wanted, String> {
        let (uid, users) = (uid(pod), self.own_users(pod)?);
        let ipc = !asks(pod, |spec| spec.host_ipc);
        let network = self.own_network(pod).is_ok();
        if network {
            self.host_ports(pod)?;
        }
        let on_host = asks(pod, |spec| spec.host_network);
        let sysctls = self.sysctls(pod, users)?;
        Ok(Wanted {
            hostname: if on_host { None } else { Some(own_hostname(pod)?) },
            ipc,
            network,
            shares_processes: asks(pod, |spec| spec.share_process_namespace) && !sees_host_processes(pod),
            users,
            sysctls,
            shared_memory: ipc.then(|| self.shared_memory(uid)),
            memory: self.in_memory(pod),
        })
    }

    /// The host's users that are a pod's own, if it has any (`hostUsers: false`).
    pub(super) fn own_users(&self, pod: &Pod) -> Result<Option<Mapping>, String> {
        if pod.spec.as_ref().and_then(|spec| spec.host_users) != Some(false) {
            return Ok(None);
        }
        let range = self.user_ranges.of(&self.folders.pods(), uid(pod));
        range.map(Some).map_err(|why| format!("can't give the pod users of its own: {why}"))
    }

    /// Whether a pod has a network of its own; if not, why its parameters can't be set.
    pub(super) fn own_network(&self, pod: &Pod) -> Result<(), String> {
        match &self.own_networks {
            _ if asks(pod, |spec| spec.host_network) => Err("not allowed with host net enabled".to_owned()),
            Ok(()) => Ok(()),
            Err(why) => {
                Err(format!("can't be set: pods have no networks of their own on this host, since {why}"))
            }
        }
    }

    pub(super) fn host_ports(&self, pod: &Pod) -> Result<Vec<HostPort>, String> {
        host_ports(pod, |address| self.network.check_host_ip(address))
    }

    pub(super) fn sysctls(&self, pod: &Pod, users: Option<Mapping>) -> Result<Vec<(String, String)>, String> {
        let network = self.own_network(pod);
        let own = OfPod {
            ipc: !asks(pod, |spec| spec.host_ipc),
            network: network.as_ref().copied().map_err(String::as_str),
            users,
        };
        let shared = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
        sysctls(shared.and_then(|shared| shared.sysctls.as_deref()).unwrap_or_default(), own)
    }

    /// Why this host never runs the pod, if it doesn't, as the kubelet decides on admission: then the pod fails at once.
    pub(super) fn rejection(&self, pod: &Pod) -> Option<Failure> {
        let refused = |reason| move |message| Failure { reason, message, is_disruption: false };
        let os = pod.spec.as_ref().and_then(|spec| spec.os.as_ref());
        if os.is_some_and(|os| os.name != "linux") {
            let why = "Failed to admit pod as the OS field doesn't match node OS".to_owned();
            return Some(refused("PodOSNotSupported")(why));
        }
        let handler = self.handler(pod, &self.store.snapshot());
        let Ok(Handler::Oci | Handler::Foreign) = handler else { return None };
        let sysctls = self.sysctls(pod, None).err().map(refused("SysctlForbidden"));
        sysctls.or_else(|| refused_by_app_armor(pod, self.app_armor.is_enabled()).map(refused("AppArmor")))
    }

    fn shared_memory(&self, uid: &str) -> PathBuf {
        self.folders.pod(uid).join("shm")
    }

    /// The container whose processes one that was added to look inside is to be among, and the namespace that these are in.
    ///
    /// # Errors
    /// If it doesn't run.
    pub(super) fn target(&self, pod: &Pod, which: &Which) -> Result<Option<(Which, Namespace)>, RunError> {
        let Some(name) = target(pod, &which.container) else { return Ok(None) };
        let live = self.running.get(&which.uid, name);
        let found =
            live.and_then(|live| Some((self.runtime.first_process(&live.which)?, live.which.clone())));
        let (pid, target) = found.ok_or_else(|| RunError::no_target(name))?;
        let path = Some(format!("/proc/{pid}/ns/pid").into());
        Ok(Some((target, Namespace { kind: NamespaceKind::Pid, path })))
    }

    /// Makes a pod's sandbox, with its network connected; fine if it is there. Answers the namespaces that its containers share.
    ///
    /// # Errors
    /// What of it can't be made.
    pub(super) async fn hold(
        &self,
        pod: &Pod,
        wanted: Shape,
        address: IpAddr,
    ) -> Result<Vec<Namespace>, RunError> {
        let uid = uid(pod);
        let namespaces = self.runtime.prepare(uid, wanted).await?;
        // As the shim says, not as it was asked: a sandbox that was made by an agent without networks stays as it is.
        if namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Network) {
            let network = self.runtime.network(uid).await.ok_or(RunError::Gone)?;
            let ports = self.host_ports(pod).map_err(RunError::Config)?;
            let connected = self.network.connect(address, network, ports).await;
            connected.map_err(|why| {
                RunError::System(format!("can't connect the pod's network ({address}): {why}"))
            })?;
        }
        Ok(namespaces)
    }
}

/// The ports of the host that lead to a pod: those of its containers that run side by side. `check` says whether the address of
/// one may be asked for.
///
/// # Errors
/// Which can't be passed on.
fn host_ports(pod: &Pod, check: impl Fn(IpAddr) -> Result<(), String>) -> Result<Vec<HostPort>, String> {
    let spec = pod.spec.iter();
    let sidecars = spec.clone().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let containers = spec.flat_map(|spec| &spec.containers).chain(sidecars);
    let mut all = Vec::new();
    for port in containers.flat_map(|container| container.ports.iter().flatten()) {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        let Some(of_host) = port.host_port.and_then(number) else { continue };
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let is_udp = match protocol {
            "TCP" => false,
            "UDP" => true,
            _ => {
                return Err(format!(
                    "hostPort {of_host}: {protocol} isn't passed on to pods; TCP and UDP are"
                ));
            }
        };
        let Some(to) = number(port.container_port) else { continue };
        let address = port.host_ip.as_deref().and_then(|address| address.parse::<IpAddr>().ok());
        let address = address.filter(|address| !address.is_unspecified());
        if let Some(Err(why)) = address.map(&check) {
            return Err(format!("hostPort {of_host}: {why}"));
        }
        all.push(HostPort { is_udp, address, number: of_host, to });
    }
    Ok(all)
}

/// The host name of a pod: a full one where it asks for that.
pub(super) fn own_hostname(pod: &Pod) -> Result<String, String> {
    let name = hostname(pod);
    let (true, Some(domain)) = (asks(pod, |spec| spec.set_hostname_as_fqdn), domain(pod)) else {
        return Ok(name);
    };
    let full = format!("{name}.{domain}");
    if full.len() > LONGEST_HOSTNAME {
        return Err(format!(
            "Failed to construct FQDN from Pod hostname and cluster domain, FQDN {full} is too long ({LONGEST_HOSTNAME} \
             characters is the max, {} characters requested)",
            full.len()
        ));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_of_the_host_are_those_that_run_side_by_side() {
        let of = |protocol: &str| {
            let port = |number: u16| json!({"containerPort": 80, "hostPort": number});
            let pod = json!({"spec": {
                "initContainers": [{"name": "once", "ports": [port(1)]},
                    {"name": "side", "restartPolicy": "Always", "ports": [port(2)]}],
                "containers": [{"name": "main", "ports": [{"containerPort": 81},
                    {"containerPort": 53, "hostPort": 3, "hostIP": "10.0.0.1", "protocol": protocol},
                    {"containerPort": 82, "hostPort": 4, "hostIP": "0.0.0.0"}]}]}});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            (host_ports(&pod, |_| Ok(())), host_ports(&pod, |address| Err(format!("not {address}"))))
        };
        let plain = HostPort { is_udp: false, address: None, number: 4, to: 82 };
        let named = HostPort { is_udp: true, address: "10.0.0.1".parse().ok(), number: 3, to: 53 };
        let side = HostPort { number: 2, to: 80, ..plain };
        assert_eq!(of("UDP").0, Ok(vec![named, plain, side]));
        assert_eq!(of("UDP").1.unwrap_err(), "hostPort 3: not 10.0.0.1", "none is asked about 0.0.0.0");
        assert_eq!(of("SCTP").0.unwrap_err(), "hostPort 3: SCTP isn't passed on to pods; TCP and UDP are");
    }
}
