//! Where a webhook is: the `clientConfig` of a configuration.

use serde_json::Value;

use super::CallError;

/// Where a webhook is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The name that its certificate must have.
    pub(super) host: String,
    pub(super) way: Way,
    /// Path and query.
    pub(super) path: String,
}

/// How to get there.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Past everything that the cluster knows of.
    Direct { port: u16 },
    /// A service in the cluster.
    Service { namespace: String, name: String, port: String },
}

impl Address {
    pub(super) fn of(config: &Value, timeout_seconds: u64) -> Result<Self, CallError> {
        let with_timeout = |path: &str| {
            let mark = if path.contains('?') { '&' } else { '?' };
            format!("{path}{mark}timeout={timeout_seconds}s")
        };
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        if let Some(url) = config["url"].as_str() {
            let wrong = || CallError::Address(url.to_owned());
            let uri: http::Uri = url.parse().map_err(|_| wrong())?;
            let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(wrong)?;
            let path = uri.path_and_query().map_or("/", |path| path.as_str());
            return Ok(Address {
                host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
                way: Way::Direct { port: uri.port_u16().unwrap_or(443) },
                path: with_timeout(path),
            });
        }
        let service = &config["service"];
        let (namespace, name) = (text(service, "namespace"), text(service, "name"));
        if name.is_empty() {
            return Err(CallError::Address("neither a url nor a service".to_owned()));
        }
        let port = service["port"].as_u64().unwrap_or(443).to_string();
        let path = text(service, "path");
        let path = if path.starts_with('/') { path } else { format!("/{path}") };
        Ok(Address {
            host: format!("{name}.{namespace}.svc"),
            way: Way::Service { namespace, name, port },
            path: with_timeout(&path),
        })
    }

    /// The whole, as errors name it.
    pub(super) fn url(&self) -> String {
        let port = match &self.way {
            Way::Direct { port } => port.to_string(),
            Way::Service { port, .. } => port.clone(),
        };
        format!("https://{}{}", self.authority(&port), self.path)
    }

    pub(super) fn authority(&self, port: &str) -> String {
        if self.host.contains(':') {
            format!("[{}]:{port}", self.host)
        } else {
            format!("{}:{port}", self.host)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_webhook_is_at_a_url_or_behind_a_service() {
        let url = Address::of(&json!({"url": "https://[::1]:8443/a?b=c"}), 5).unwrap();
        assert_eq!((url.host.as_str(), &url.way), ("::1", &Way::Direct { port: 8443 }));
        assert_eq!(url.url(), "https://[::1]:8443/a?b=c&timeout=5s");
        let service = json!({"service": {"namespace": "n", "name": "s", "path": "validate", "port": 9443}});
        assert_eq!(Address::of(&service, 10).unwrap().url(), "https://s.n.svc:9443/validate?timeout=10s");
        for wrong in [json!({}), json!({"url": "http://a/"}), json!({"url": "https://"})] {
            assert!(Address::of(&wrong, 1).is_err(), "{wrong}");
        }
    }
}
