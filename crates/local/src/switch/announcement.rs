//! What hosts tell the switch: one JSON object a datagram.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// The most addresses that one host may announce.
const MOST_ENTRIES: usize = 4096;

/// All addresses that a host stands for at the moment. What it no longer lists it has given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The name of the host.
    pub host: String,
    /// The addresses.
    pub entries: Vec<Entry>,
}

/// An address, and where its connections are to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Whether one host holds it, or several at once.
    pub kind: AddressKind,
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Where the host itself takes its connections.
    pub target: SocketAddr,
}

/// How an address is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressKind {
    /// By one host: the last that announced it.
    Vip,
    /// By every host that announces it, in turn.
    Service,
}

/// A transport protocol, in Kubernetes' spelling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Announcement {
    /// Reads a datagram. Only addresses of the loopback network are accepted: nobody outside may be reached by
    /// a datagram that anyone on the machine can send.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(datagram: &[u8]) -> Result<Self, String> {
        let announcement: Self = serde_json::from_slice(datagram).map_err(|e| e.to_string())?;
        if announcement.entries.len() > MOST_ENTRIES {
            return Err(format!("more than {MOST_ENTRIES} addresses"));
        }
        for entry in &announcement.entries {
            if !entry.address.is_loopback() || !entry.target.ip().is_loopback() {
                return Err(format!("{} or {} isn't an address of loopback", entry.address, entry.target));
            }
            if entry.port == 0 || entry.target.port() == 0 {
                return Err("port 0".into());
            }
        }
        Ok(announcement)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIP: &str = r#"{"host":"n1","entries":[{"kind":"vip","address":"127.0.0.100","port":6443,
        "protocol":"TCP","target":"127.0.1.1:6443"}]}"#;

    #[test]
    fn the_agreed_datagram_is_understood() {
        let announcement = Announcement::parse(VIP.as_bytes()).unwrap();
        assert_eq!(announcement.host, "n1");
        assert_eq!(
            announcement.entries,
            [Entry {
                kind: AddressKind::Vip,
                address: [127, 0, 0, 100].into(),
                port: 6443,
                protocol: Protocol::Tcp,
                target: ([127, 0, 1, 1], 6443).into(),
            }]
        );
    }

    #[test]
    fn what_is_not_one_is_refused() {
        let bad = [
            "".to_owned(),
            "{}".to_owned(),
            VIP.replace("vip", "anycast"),
            VIP.replace("TCP", "SCTP"),
            VIP.replace("127.0.0.100", "192.0.2.1"),
            VIP.replace("127.0.1.1", "192.0.2.1"),
            VIP.replace("127.0.1.1:6443", "127.0.1.1:0"),
        ];
        for datagram in bad {
            assert!(Announcement::parse(datagram.as_bytes()).is_err(), "{datagram}");
        }
    }
}
