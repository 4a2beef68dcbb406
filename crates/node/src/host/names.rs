//! How a pod's processes find hosts by name: their own `/etc/hosts`, and `/etc/resolv.conf` where the pod
//! has a say in it. Both as the kubelet writes them (`pkg/kubelet/kubelet_pods.go`, `network/dns`), in the
//! pod's folder, to be mounted over the host's.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use k8s_openapi::api::core::v1::{Pod, PodDNSConfig};

use crate::pod::{domain, hostname};

const HOSTS: &str = "/etc/hosts";
const RESOLVER: &str = "/etc/resolv.conf";

/// Writes the pod's files into its folder.
///
/// # Errors
/// If the folder can't be written to.
pub(crate) fn write_name_files(folder: &Path, pod: &Pod, address: IpAddr) -> io::Result<()> {
    let machine = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let texts = [hosts(pod, address, || machine(HOSTS)), resolver(pod, || machine(RESOLVER))];
    for ((file, _), text) in name_files(folder).into_iter().zip(texts) {
        if let Some(text) = text {
            fs::write(file, text)?;
        }
    }
    Ok(())
}

/// The pod's files and where its processes see them; one that was not written is the host's own.
pub(crate) fn name_files(folder: &Path) -> [(PathBuf, &'static str); 2] {
    [(folder.join("etc-hosts"), HOSTS), (folder.join("etc-resolv.conf"), RESOLVER)]
}

/// The text of `/etc/hosts`; none where the host's own is right.
fn hosts(pod: &Pod, address: IpAddr, machine: impl FnOnce() -> String) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    let mut text = if spec.host_network == Some(true) {
        if aliases.is_empty() {
            return None;
        }
        format!("# Kubernetes-managed hosts file (host network).\n{}", machine())
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

/// The text of `/etc/resolv.conf`; none where the host's own is right.
fn resolver(pod: &Pod, machine: impl FnOnce() -> String) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let mut resolver = match (spec.dns_policy.as_deref(), &spec.dns_config) {
        (Some("None"), _) => Resolver::default(),
        (_, Some(_)) => Resolver::parse(&machine()),
        (_, None) => return None,
    };
    if let Some(config) = &spec.dns_config {
        resolver.add(config);
    }
    Some(resolver.to_string())
}

/// A resolver's configuration (resolv.conf(5)).
#[derive(Debug, Default)]
struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<(String, Option<String>)>,
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Resolver::default();
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                Some("search" | "domain") => resolver.searches = words.collect(),
                Some("options") => words.for_each(|word| {
                    let (name, value) = match word.split_once(':') {
                        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                        None => (word, None),
                    };
                    resolver.set(name, value);
                }),
                _ => {}
            }
        }
        resolver
    }

    /// Adds what isn't there yet; an option's last value wins.
    fn add(&mut self, config: &PodDNSConfig) {
        let add = |list: &mut Vec<String>, more: &Option<Vec<String>>| {
            for text in more.iter().flatten() {
                if !list.contains(text) {
                    list.push(text.clone());
                }
            }
        };
        add(&mut self.servers, &config.nameservers);
        add(&mut self.searches, &config.searches);
        for option in config.options.iter().flatten() {
            self.set(option.name.clone().unwrap_or_default(), option.value.clone());
        }
    }

    fn set(&mut self, name: String, value: Option<String>) {
        match self.options.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.options.push((name, value)),
        }
    }
}

impl std::fmt::Display for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            write!(f, "options")?;
            for (name, value) in &self.options {
                match value.as_deref().filter(|value| !value.is_empty()) {
                    Some(value) => write!(f, " {name}:{value}")?,
                    None => write!(f, " {name}")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
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
    fn a_resolver_is_the_host_s_with_what_the_pod_adds_or_the_pod_s_alone() {
        let machine = "# ours\ndomain old\nsearch corp.test\nnameserver 192.0.2.53\noptions ndots:1 rotate\n";
        let of = |spec: Value| resolver(&pod(spec), || machine.into());
        let config = json!({
            "nameservers": ["192.0.2.99", "192.0.2.53"], "searches": ["x.test"],
            "options": [{"name": "ndots", "value": "5"}, {"name": "edns0"}],
        });
        for (spec, expected) in [
            (json!({}), None),
            (json!({"dnsPolicy": "ClusterFirst"}), None),
            (json!({"dnsPolicy": "None"}), Some("")),
            (
                json!({"dnsPolicy": "None", "dnsConfig": config}),
                Some("search x.test\nnameserver 192.0.2.99\nnameserver 192.0.2.53\noptions ndots:5 edns0\n"),
            ),
            (
                json!({"dnsPolicy": "Default", "dnsConfig": config}),
                Some(
                    "search corp.test x.test\nnameserver 192.0.2.53\nnameserver 192.0.2.99\n\
                     options ndots:5 rotate edns0\n",
                ),
            ),
        ] {
            assert_eq!(of(spec.clone()).as_deref(), expected, "{spec}");
        }
    }
}
