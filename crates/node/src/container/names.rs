//! How a pod's processes find hosts by name: their own `/etc/hosts` and `/etc/resolv.conf`. Both as the kubelet writes them
//! (`pkg/kubelet/kubelet_pods.go`, `network/dns`), in the pod's folder, to be mounted over the host's.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use dns::ResolvConf;
use k8s_openapi::api::core::v1::Pod;

use crate::pod::{domain, hostname};

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";
const HOSTNAME: &str = "/etc/hostname";
/// How many dots a name needs to be asked for as it is first, for a pod that asks the cluster's DNS: more than any short form of
/// a service's port has.
const DOTS: &str = "5";
/// What a file begins with that is the host's.
const ON_HOST: &str = "# Kubernetes-managed hosts file (host network).\n";

/// Something to tell about a pod as a Warning: the reason, and what happened.
pub(crate) type Warning = (&'static str, String);

/// Writes the pod's files into its folder: all of them, with its host name `own_root`, for one whose containers have a root of
/// their own, in which nothing of the host's is there already. `cluster` are the addresses of the cluster's DNS. Answers what
/// there is to tell.
///
/// # Errors
/// If the folder can't be written to.
pub(crate) fn write_name_files(
    folder: &Path,
    pod: &Pod,
    address: IpAddr,
    cluster: &[IpAddr],
    own_root: Option<&str>,
) -> io::Result<Vec<Warning>> {
    let machine = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let of_hosts = || machine(Path::new(HOSTS));
    let of_resolver = || machine(&dns::machine_resolv_conf());
    let (mut resolver, warnings) = resolv_conf(pod, cluster, of_resolver);
    let mut hosts = hosts(pod, address, of_hosts);
    if own_root.is_some() {
        hosts.get_or_insert_with(|| format!("{ON_HOST}{}", of_hosts()));
        resolver.get_or_insert_with(of_resolver);
    }
    let texts = [hosts, resolver, own_root.map(|name| format!("{name}\n"))];
    for ((file, _), text) in name_files(folder).into_iter().zip(texts) {
        if let Some(text) = text {
            fs::write(file, text)?;
        }
    }
    Ok(warnings)
}

/// The pod's files and where its processes see them; one that was not written is the host's own.
pub(crate) fn name_files(folder: &Path) -> [(PathBuf, &'static str); 3] {
    let file = |name: &str| folder.join(name);
    [(file("etc-hosts"), HOSTS), (file("etc-resolv.conf"), RESOLVER), (file("etc-hostname"), HOSTNAME)]
}

/// The text of `/etc/hosts`; none where the host's own is right.
fn hosts(pod: &Pod, address: IpAddr, machine: impl FnOnce() -> String) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    let mut text = if spec.host_network == Some(true) {
        if aliases.is_empty() {
            return None;
        }
        format!("{ON_HOST}{}", machine())
    } else {
        let name = hostname(pod);
        let names = match domain(pod) {
            Some(domain) => format!("{name}.{domain}\t{name}"),
            None => name,
        };
        format!(
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n\
             {address}\t{names}\n"
        )
    };
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.iter().flatten().map(String::as_str);
        text.push_str(&[alias.ip.as_str()].into_iter().chain(names).collect::<Vec<_>>().join("\t"));
        text.push('\n');
    }
    Some(text)
}

/// The text of `/etc/resolv.conf`, and what there is to tell about it; no text where the host's own is right.
pub(crate) fn resolv_conf(
    pod: &Pod,
    cluster: &[IpAddr],
    machine: impl FnOnce() -> String,
) -> (Option<String>, Vec<Warning>) {
    let Some(spec) = &pod.spec else { return (None, Vec::new()) };
    let mut warnings = Vec::new();
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let asks_cluster = match policy {
        "ClusterFirstWithHostNet" => true,
        "ClusterFirst" => spec.host_network != Some(true),
        _ => false,
    };
    if asks_cluster && cluster.is_empty() {
        let message = format!(
            "kubelet does not have ClusterDNS IP configured and cannot create Pod using {policy:?} policy. Falling back to \
             {:?} policy.",
            "Default"
        );
        warnings.push(("MissingClusterDNS", message));
    }
    let mut conf = if policy == "None" {
        ResolvConf::default()
    } else if asks_cluster && !cluster.is_empty() {
        let mut conf = ResolvConf::default();
        conf.add_servers(&cluster.iter().map(IpAddr::to_string).collect::<Vec<_>>());
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let domain = dns::DOMAIN;
        conf.add_searches(&[format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()]);
        conf.add_searches(&ResolvConf::parse(&machine()).searches);
        conf.set("ndots", Some(DOTS));
        conf
    } else if spec.dns_config.is_some() {
        ResolvConf::parse(&machine())
    } else {
        return (None, warnings);
    };
    if let Some(config) = &spec.dns_config {
        conf.add_servers(config.nameservers.iter().flatten());
        conf.add_searches(config.searches.iter().flatten());
        for option in config.options.iter().flatten() {
            conf.set(option.name.as_deref().unwrap_or_default(), option.value.as_deref());
        }
    }
    warnings.extend(conf.fit().into_iter().map(|message| ("DNSConfigForming", message)));
    (Some(conf.to_string()), warnings)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let metadata = json!({"name": "web-0", "namespace": "shop"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_pod_knows_itself_and_its_aliases() {
        let of = |spec: Value| {
            let address = "10.244.1.7".parse().unwrap();
            hosts(&pod(spec), address, || "127.0.0.1 localhost machine\n".into())
        };
        let aliases = json!([{"ip": "192.0.2.1", "hostnames": ["a.test", "b.test"]}, {"ip": "192.0.2.2"}]);
        for (spec, last) in [
            (json!({}), "10.244.1.7\tweb-0\n"),
            (json!({"hostname": "db"}), "10.244.1.7\tdb\n"),
            (
                json!({"hostname": "db", "subdomain": "dbs"}),
                "10.244.1.7\tdb.dbs.shop.svc.cluster.local\tdb\n",
            ),
            (
                json!({"hostAliases": aliases}),
                "\n# Entries added by HostAliases.\n192.0.2.1\ta.test\tb.test\n192.0.2.2\n",
            ),
        ] {
            let text = of(spec).unwrap();
            assert!(text.starts_with("# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"), "{text}");
            assert!(text.ends_with(last), "{text:?} does not end with {last:?}");
        }
        assert_eq!(of(json!({"hostNetwork": true})), None, "the host's own");
        let text = of(json!({"hostNetwork": true, "hostAliases": aliases})).unwrap();
        assert!(text.contains("localhost machine\n") && text.contains("a.test"), "{text}");
        assert!(!text.contains("10.244.1.7"), "{text}");
    }

    #[test]
    fn a_pod_asks_whom_its_policy_says_with_what_it_adds() {
        let machine = "# ours\ndomain old\nsearch corp.test\nnameserver 192.0.2.53\noptions ndots:1 rotate\n";
        let of = |spec: Value, cluster: &[IpAddr]| resolv_conf(&pod(spec), cluster, || machine.into());
        let config = json!({
            "nameservers": ["192.0.2.99", "192.0.2.53"], "searches": ["x.test", "svc.cluster.local"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        });
        let cluster = [IpAddr::from([10, 96, 0, 10])];
        let searches = "search shop.svc.cluster.local svc.cluster.local cluster.local corp.test";
        let first = format!("{searches}\nnameserver 10.96.0.10\noptions ndots:5\n");
        for (spec, expected) in [
            (json!({}), Some(&*first)),
            (json!({"dnsPolicy": "ClusterFirst"}), Some(&*first)),
            (json!({"dnsPolicy": "ClusterFirst", "hostNetwork": true}), None),
            (json!({"dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true}), Some(&*first)),
            (
                json!({"dnsPolicy": "ClusterFirst", "dnsConfig": config}),
                Some(&*format!(
                    "{searches} x.test\nnameserver 10.96.0.10\nnameserver 192.0.2.99\nnameserver 192.0.2.53\n\
                     options ndots:2 edns0\n"
                )),
            ),
            (json!({"dnsPolicy": "None"}), Some("")),
            (
                json!({"dnsPolicy": "None", "dnsConfig": config}),
                Some(
                    "search x.test svc.cluster.local\nnameserver 192.0.2.99\nnameserver 192.0.2.53\n\
                     options ndots:2 edns0\n",
                ),
            ),
            (json!({"dnsPolicy": "Default"}), None),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": config}),
                Some(
                    "search corp.test x.test svc.cluster.local\nnameserver 192.0.2.53\nnameserver 192.0.2.99\n\
                     options ndots:2 rotate edns0\n",
                ),
            ),
        ] {
            let (text, warnings) = of(spec.clone(), &cluster);
            assert_eq!((text.as_deref(), warnings), (expected, Vec::new()), "{spec}");
        }

        let (text, warnings) = of(json!({}), &[]);
        let missing = "kubelet does not have ClusterDNS IP configured and cannot create Pod using \"ClusterFirst\" \
                       policy. Falling back to \"Default\" policy.";
        assert_eq!((text, warnings), (None, vec![("MissingClusterDNS", missing.to_owned())]));
        let servers = json!({"nameservers": ["192.0.2.1", "192.0.2.2", "192.0.2.3"]});
        let (text, warnings) = of(json!({"dnsConfig": servers}), &cluster);
        assert_eq!(text.unwrap().matches("nameserver").count(), 3);
        let [("DNSConfigForming", message)] = warnings.as_slice() else { panic!("{warnings:?}") };
        assert!(
            message.ends_with("the applied nameserver line is: 10.96.0.10 192.0.2.1 192.0.2.2"),
            "{message}"
        );
    }
}
