//! Whose endpoints this host's balancer leaves out, and when that is news.

use std::collections::BTreeSet;

use membership::Hosts;

use crate::Services;

/// Endpoints of a host left the balancer, or came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Dropped { host: String, count: usize },
    Restored { host: String, count: usize },
}

/// Which silent hosts have endpoints.
#[derive(Debug, Default)]
pub(crate) struct Dropped(BTreeSet<String>);

impl Dropped {
    /// What is new with these services and these hosts; each host's silence is reported once.
    pub fn update(&mut self, services: &Services, hosts: &Hosts) -> Vec<News> {
        let mut news = Vec::new();
        for (host, known) in &hosts.0 {
            if known.silent == self.0.contains(host) {
                continue;
            }
            let count = services.endpoints_on(host);
            if known.silent && count > 0 {
                self.0.insert(host.clone());
                news.push(News::Dropped { host: host.clone(), count });
            } else if !known.silent {
                self.0.remove(host);
                // Meanwhile all of them may have moved elsewhere.
                if count > 0 {
                    news.push(News::Restored { host: host.clone(), count });
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    use super::*;

    fn services(nodes: &[&str]) -> Services {
        let meta =
            |name| json!({"name": name, "namespace": "d", "labels": {"kubernetes.io/service-name": "web"}});
        let endpoints: Vec<_> = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| json!({"addresses": [format!("10.0.0.{at}")], "nodeName": node}))
            .collect();
        let ports = json!([{"port": 80}]);
        let service = json!({"metadata": meta("web"), "spec": {"ports": ports}});
        let slice =
            json!({"metadata": meta("web-1"), "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
        let service: Service = serde_json::from_value(service).unwrap();
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        Services::new(&[Arc::new(service)], &[Arc::new(slice)], &crate::Targets::default())
    }

    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    fn hosts(silent: &[&str]) -> Hosts {
        let host = |name: &str| membership::Host {
            last_heard: Instant::now(),
            silent: silent.contains(&name),
            incarnation: Some(1),
        };
        Hosts(["n2", "n3"].into_iter().map(|name| (name.to_owned(), host(name))).collect())
    }

    #[test]
    fn a_hosts_silence_is_told_once_and_only_if_it_has_endpoints() {
        let mut dropped = Dropped::default();
        let (none, some) = (services(&["n1"]), services(&["n1", "n2", "n2"]));
        assert_eq!(dropped.update(&none, &hosts(&["n2", "n3"])), [], "nothing to drop");
        let news = News::Dropped { host: "n2".into(), count: 2 };
        assert_eq!(dropped.update(&some, &hosts(&["n2", "n3"])), [news]);
        assert_eq!(dropped.update(&some, &hosts(&["n2"])), []);
        let news = News::Restored { host: "n2".into(), count: 2 };
        assert_eq!(dropped.update(&some, &hosts(&[])), [news]);
        assert_eq!(dropped.update(&some, &hosts(&[])), []);

        assert_eq!(dropped.update(&some, &hosts(&["n2"])).len(), 1);
        assert_eq!(dropped.update(&none, &hosts(&[])), [], "all of them moved elsewhere meanwhile");
        assert_eq!(dropped.update(&some, &hosts(&["n2"])).len(), 1);
    }
}
