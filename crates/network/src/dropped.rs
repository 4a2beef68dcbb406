//! Whose endpoints get no callers, and when that is news.

use std::collections::BTreeSet;

use crate::Directory;

/// Endpoints of a host left the services, or came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    Dropped { host: String, count: usize },
    Restored { host: String, count: usize },
}

/// Which silent hosts have endpoints.
#[derive(Debug, Default)]
pub(crate) struct Dropped(BTreeSet<String>);

impl Dropped {
    /// What is new; each host's silence is reported once, when it has endpoints.
    pub fn update(&mut self, directory: &Directory) -> Vec<News> {
        let mut news = Vec::new();
        let heard: Vec<String> = self.0.difference(directory.silent()).cloned().collect();
        for host in heard {
            self.0.remove(&host);
            // Meanwhile all of them may have moved elsewhere.
            let count = directory.endpoints_on(&host);
            if count > 0 {
                news.push(News::Restored { host, count });
            }
        }
        for host in directory.silent() {
            let count = directory.endpoints_on(host);
            if count > 0 && self.0.insert(host.clone()) {
                news.push(News::Dropped { host: host.clone(), count });
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use membership::Hosts;
    use serde_json::json;
    use store::{Memory, Store, Txn};

    use super::*;

    /// A Service `web` with an endpoint on each of these nodes.
    async fn serve(directory: &mut Directory, nodes: &[&str]) {
        let store = Memory::default();
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
        for (group, resource, name, object) in
            [("", "services", "web", service), ("discovery.k8s.io", "endpointslices", "web-1", slice)]
        {
            let key = objects::key(group, resource, "d", name);
            store.txn(Txn::put(key, object.to_string())).await.unwrap();
        }
        directory.load(&store.snapshot());
        directory.changes();
    }

    #[allow(clippy::disallowed_methods)] // Some instant; nothing depends on which.
    fn hosts(silent: &[&str]) -> Hosts {
        let host = |name: &str| membership::Liveness {
            last_heard: Instant::now(),
            silent: silent.contains(&name),
            incarnation: Some(1),
        };
        Hosts(["n2", "n3"].into_iter().map(|name| (name.to_owned(), host(name))).collect())
    }

    #[tokio::test]
    async fn a_hosts_silence_is_told_once_and_only_if_it_has_endpoints() {
        let mut dropped = Dropped::default();
        let mut directory = Directory::new("n1", crate::Targets::default());
        let mut update = |directory: &mut Directory, silent: &[&str]| {
            directory.hosts(&hosts(silent));
            dropped.update(directory)
        };
        let (none, some): (&[&str], &[&str]) = (&["n1"], &["n1", "n2", "n2"]);
        serve(&mut directory, none).await;
        assert_eq!(update(&mut directory, &["n2", "n3"]), [], "nothing to drop");
        serve(&mut directory, some).await;
        let news = News::Dropped { host: "n2".into(), count: 2 };
        assert_eq!(update(&mut directory, &["n2", "n3"]), [news]);
        assert_eq!(update(&mut directory, &["n2"]), []);
        let news = News::Restored { host: "n2".into(), count: 2 };
        assert_eq!(update(&mut directory, &[]), [news]);
        assert_eq!(update(&mut directory, &[]), []);

        assert_eq!(update(&mut directory, &["n2"]).len(), 1);
        serve(&mut directory, none).await;
        assert_eq!(update(&mut directory, &[]), [], "all of them moved elsewhere meanwhile");
        serve(&mut directory, some).await;
        assert_eq!(update(&mut directory, &["n2"]).len(), 1);
    }
}
