//! TLS to pods that speak it: encrypted, but with any certificate, because no authority signs those of pods (as upstream's
//! proxy has it).

use std::io;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Speaks TLS over a connection to a pod or service.
pub(crate) async fn encrypt(stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, io::Error> {
    let config = pki::client_config_for_anyone().map_err(io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}
