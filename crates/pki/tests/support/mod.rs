//! Identities, and whole handshakes in memory.

use std::sync::Arc;
use std::time::SystemTime;

use pki::{Authority, HostNames, Identity, LiveIdentity};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

/// Today.
#[allow(clippy::disallowed_methods)] // A test is a driver: certificates are checked against today.
pub fn now() -> SystemTime {
    SystemTime::now()
}

pub fn names(name: &str) -> HostNames {
    HostNames {
        name: name.to_owned(),
        address: [127, 0, 1, 1].into(),
        virtual_address: [127, 0, 0, 100].into(),
        first_service_address: [127, 96, 0, 1].into(),
    }
}

pub fn host(authority: &Authority, name: &str) -> Identity {
    authority.host_identity(&names(name), now()).unwrap()
}

pub fn live(authority: &Authority, name: &str) -> LiveIdentity {
    LiveIdentity::new(host(authority, name)).unwrap()
}

/// Carries bytes between the two until neither has more to say, then a byte each way.
pub fn shake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: &str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(client, name)?;
    let mut server = ServerConnection::new(server)?;
    carry(&mut client, &mut server)?;
    Ok((client, server))
}

/// Carries what either has to say.
pub fn carry(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    let mut wire = Vec::new();
    while client.wants_write() || server.wants_write() {
        client.write_tls(&mut wire).unwrap();
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets()?;
        }
        wire.clear();
        server.write_tls(&mut wire).unwrap();
        let mut bytes = &wire[..];
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets()?;
        }
        wire.clear();
    }
    Ok(())
}
