//! One question to a webhook, and its answer.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::address::{Address, Way};
use super::trust::Trusts;
use crate::backend::{Backends, send};
use crate::http::response::{JSON, full};

/// The longest answer, in bytes. An object of 3 MiB that is replaced as a whole comes back as a patch of 4 MiB in base64, and
/// objects that are converted come in batches of 2 MiB: twice that leaves room for what a webhook adds.
const LARGEST: usize = 10 * 1024 * 1024;

/// Why a webhook gave no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// The configuration doesn't say where it is.
    #[error("{0}: no address of a webhook; write an https URL or a service")]
    Address(String),
    /// The configuration's authorities can't be read.
    #[error("caBundle: {0}; give the authority's certificate in PEM")]
    Bundle(String),
    /// It could not be reached, or broke off.
    #[error("Post {url:?}: {why}")]
    Failed {
        /// The webhook's address.
        url: String,
        /// What went wrong.
        why: String,
    },
    /// It answered that it could not answer.
    #[error(
        "Post {url:?}: an error on the server ({body:?}) has prevented the request from succeeding, code {code}"
    )]
    Refused {
        /// The webhook's address.
        url: String,
        /// The code of the answer.
        code: u16,
        /// How the answer begins.
        body: String,
    },
}

/// Calls webhooks.
pub(crate) struct WebhookClient {
    backends: Arc<dyn Backends>,
    trusts: Trusts,
}

impl WebhookClient {
    /// One that reaches services through `backends`.
    pub(crate) fn new(backends: Arc<dyn Backends>) -> Self {
        WebhookClient { backends, trusts: Trusts::default() }
    }

    /// The JSON that the webhook of a `clientConfig` answers to `body`.
    pub(crate) async fn post(
        &self,
        config: &Value,
        body: &Value,
        timeout_seconds: u64,
    ) -> Result<Value, CallError> {
        let address = Address::of(config, timeout_seconds)?;
        let url = address.url();
        let failed = |why: String| CallError::Failed { url: url.clone(), why };
        let tls = self.trusts.config(config["caBundle"].as_str().unwrap_or_default())?;
        let asked = self.ask(&address, tls, body);
        let answer = tokio::time::timeout(Duration::from_secs(timeout_seconds), asked).await;
        let (code, bytes) =
            answer.map_err(|_| failed("context deadline exceeded".to_owned()))?.map_err(failed)?;
        if !(200..300).contains(&code) {
            let body = String::from_utf8_lossy(&bytes).chars().take(200).collect();
            return Err(CallError::Refused { url, code, body });
        }
        serde_json::from_slice(&bytes).map_err(|error| failed(format!("the answer is no JSON: {error}")))
    }

    async fn ask(
        &self,
        address: &Address,
        tls: Arc<ClientConfig>,
        body: &Value,
    ) -> Result<(u16, Bytes), String> {
        let in_words = |error: io::Error| error.to_string();
        let (stream, port) = match &address.way {
            Way::Direct { port } => {
                let stream = TcpStream::connect((address.host.as_str(), *port)).await.map_err(in_words)?;
                (stream, port.to_string())
            }
            Way::Service { namespace, name, port } => {
                let stream = self.backends.connect(namespace, name, port).await.map_err(in_words)?;
                (stream, port.clone())
            }
        };
        stream.set_nodelay(true).map_err(in_words)?;
        let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(in_words)?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(&address.path)
            .header(header::HOST, address.authority(&port))
            .header(header::CONTENT_TYPE, JSON)
            .header(header::ACCEPT, JSON)
            .body(full(body.to_string()))
            .map_err(|error| error.to_string())?;
        let response = send(stream, request).await.map_err(|error| error.to_string())?;
        let code = response.status().as_u16();
        let collected = Limited::new(response.into_body(), LARGEST).collect().await;
        let bytes = collected.map_err(|error| format!("the answer broke off: {error}"))?.to_bytes();
        Ok((code, bytes))
    }
}
