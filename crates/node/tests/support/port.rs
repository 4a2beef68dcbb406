//! Asking an agent at its port.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;

use super::TestHost;

/// Who may do all.
pub const ADMIN: Option<(&str, &str)> = Some(("kubernetes-admin", "system:masters"));

/// Asks the agent's API; the answer's status and the response to read on.
pub async fn ask(
    host: &TestHost,
    who: Option<(&str, &str)>,
    path: &str,
) -> hyper::Response<hyper::body::Incoming> {
    send(host, host.authority.client(who), None, path).await.unwrap()
}

/// Asks it in the name of what `tls` and a header show.
pub async fn send(
    host: &TestHost,
    tls: Arc<rustls::ClientConfig>,
    authorization: Option<&str>,
    path: &str,
) -> Result<hyper::Response<hyper::body::Incoming>, Box<dyn std::error::Error>> {
    let address = host.agent.as_ref().unwrap().listening();
    let stream = tokio::net::TcpStream::connect(address).await?;
    let name = rustls::pki_types::ServerName::try_from("localhost")?;
    let stream = tokio_rustls::TlsConnector::from(tls).connect(name, stream).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = hyper::Request::get(path).header("host", "localhost");
    if let Some(authorization) = authorization {
        request = request.header("authorization", authorization);
    }
    Ok(sender.send_request(request.body(Empty::<bytes::Bytes>::new())?).await?)
}

/// All of an answer.
pub async fn text(response: hyper::Response<hyper::body::Incoming>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}
