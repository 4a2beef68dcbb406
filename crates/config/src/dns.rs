//! How a host answers for names, and whom it asks for others.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize, Serializer};

/// The port of DNS.
const PORT: u16 = 53;

/// The section `dns` of a host's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Dns {
    /// The servers that are asked for names outside of the cluster, in this order; with none, those that the machine asks
    /// (`/etc/resolv.conf`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<Upstream>,
    /// Which names pods have by their addresses.
    pub pods: PodNames,
}

/// A server of others: an address, with a port where that isn't 53.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upstream(pub SocketAddr);

/// Which of the names `10-244-1-7.NAMESPACE.pod.cluster.local` there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PodNames {
    /// Those of pods that there are.
    #[default]
    Verified,
    /// Those of every address: for clients that rely on what kubeadm sets.
    Insecure,
    /// None.
    Disabled,
}

impl Dns {
    pub(crate) fn is_default(&self) -> bool {
        *self == Dns::default()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.port() == PORT { self.0.ip().fmt(f) } else { self.0.fmt(f) }
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let alone = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
        let address = alone.or_else(|_| text.parse::<SocketAddr>());
        let wrong =
            |_| format!("{text:?} is no server's address; write it like 192.0.2.53 or 192.0.2.53:5353");
        address.map(Upstream).map_err(wrong)
    }
}

impl Serialize for Upstream {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Upstream {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_written_with_its_port_where_that_is_another() {
        for (text, address) in [
            ("192.0.2.53", "192.0.2.53:53"),
            ("192.0.2.53:5353", "192.0.2.53:5353"),
            ("2001:db8::53", "[2001:db8::53]:53"),
            ("[2001:db8::53]:5353", "[2001:db8::53]:5353"),
        ] {
            let server: Upstream = text.parse().unwrap();
            assert_eq!((server.0.to_string(), server.to_string()), (address.to_owned(), text.to_owned()));
        }
        assert!("dns.example".parse::<Upstream>().is_err());
    }
}
