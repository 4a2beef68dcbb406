//! HTTP towards registries: a connection a request, redirections, and an end to waiting.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, HOST, LOCATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::debug_span;

use super::patience::Patience;
use super::registries::Registries;
use super::tls::Trust;
use crate::Error;
use crate::digest::shortened;

/// As Go's client.
const MOST_REDIRECTIONS: usize = 10;
/// What is read of an answer that says what is wrong.
const LARGEST_COMPLAINT: u64 = 8 << 10;

/// Asks registries, and the servers that they name.
pub(super) struct Client {
    pub(super) registries: Registries,
    pub(super) patience: Patience,
    pub(super) trust: Trust,
}

/// An answer whose body is still to come.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

/// A body as it comes; its connection is closed with it.
pub(super) struct Body {
    incoming: Incoming,
    host: String,
    idle: Duration,
    _driver: Driver,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Asks, and goes where the answer sends. `secret` is for the host of `uri` alone.
    pub(super) async fn get(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        secret: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let mut at = uri.clone();
        for _ in 0..MOST_REDIRECTIONS {
            let same = at.scheme() == uri.scheme() && at.authority() == uri.authority();
            let answer = self.ask(&at, headers, secret.filter(|_| same)).await?;
            if !matches!(answer.status.as_u16(), 301 | 302 | 303 | 307 | 308) {
                return Ok(answer);
            }
            at = self.next(&at, &answer.headers)?;
        }
        Err(Error::Protocol {
            what: uri.to_string(),
            why: "it leads from one place to the next without end".into(),
        })
    }

    /// Where a redirection leads.
    fn next(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri, Error> {
        let wrong = |why: String| Error::Protocol { what: from.to_string(), why };
        let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| wrong("it leads elsewhere and doesn't say where".into()))?;
        let whole = match (location.starts_with("//"), location.starts_with('/')) {
            (true, _) => format!("{}:{location}", from.scheme_str().unwrap_or("https")),
            (_, true) => format!(
                "{}://{}{location}",
                from.scheme_str().unwrap_or("https"),
                from.authority().map_or("", |authority| authority.as_str())
            ),
            _ => location.to_owned(),
        };
        let shown = || shortened(location);
        let uri: Uri =
            whole.parse().map_err(|_| wrong(format!("it leads to {:?}, which is no URL", shown())))?;
        self.may_ask(&uri).map_err(|why| wrong(format!("it leads to {:?}: {why}", shown())))?;
        Ok(uri)
    }

    /// Whether a place that a registry named may be asked: not without TLS unless the configuration says so.
    pub(super) fn may_ask(&self, uri: &Uri) -> Result<(), &'static str> {
        let Some(authority) = uri.authority() else { return Err("that is no URL with a host") };
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.registries.connection(authority.as_str()).plain_http => Ok(()),
            Some("http") => Err("that is without TLS, which the configuration doesn't allow for that host"),
            _ => Err("that is neither https nor http"),
        }
    }

    async fn ask(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        secret: Option<&HeaderValue>,
    ) -> Result<Answer, Error> {
        let wrong = |why: &str| Error::Protocol { what: uri.to_string(), why: why.to_owned() };
        let authority = uri.authority().ok_or_else(|| wrong("it is no URL with a host"))?;
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.headers_mut() = headers.clone();
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| wrong("it has no host"))?;
        request.headers_mut().insert(HOST, host);
        let agent = HeaderValue::from_static(concat!("holdfast/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(USER_AGENT, agent);
        if let Some(secret) = secret {
            request.headers_mut().insert(AUTHORIZATION, secret.clone());
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| wrong("it has no path"))?;
        let silent = |what: &str| Error::Unreachable {
            registry: authority.to_string(),
            why: format!("{what} in time"),
        };
        let connected = timeout(self.patience.connect, self.connect(uri, authority.as_str())).await;
        let (mut sender, driver) = connected.map_err(|_| silent("there was no connection"))??;
        let answered = timeout(self.patience.answer, sender.send_request(request)).await;
        let answer = answered.map_err(|_| silent("it didn't answer"))?;
        let (head, incoming) = answer.map_err(|why| broken(authority.as_str(), &why))?.into_parts();
        let body =
            Body { incoming, host: authority.to_string(), idle: self.patience.answer, _driver: driver };
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn connect(
        &self,
        uri: &Uri,
        authority: &str,
    ) -> Result<(http1::SendRequest<Empty<Bytes>>, Driver), Error> {
        let unreachable = |why: String| Error::Unreachable { registry: authority.to_owned(), why };
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await.map_err(|why| unreachable(why.to_string()))?;
        if !is_tls {
            return shake_hands(tcp, authority).await;
        }
        let connector = self.trust.connector(&self.registries.connection(authority)).map_err(unreachable)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|why| unreachable(why.to_string()))?;
        let tls = connector.connect(name, tcp).await.map_err(|why| unreachable(why.to_string()))?;
        shake_hands(tls, authority).await
    }
}

async fn shake_hands(
    io: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    authority: &str,
) -> Result<(http1::SendRequest<Empty<Bytes>>, Driver), Error> {
    let (sender, connection) =
        http1::handshake(TokioIo::new(io)).await.map_err(|why| broken(authority, &why))?;
    // Its error reaches the one who waits for the answer.
    let driver = tasks::spawn(debug_span!("connection to a registry"), async { drop(connection.await) });
    Ok((sender, Driver(driver)))
}

fn broken(host: &str, error: &hyper::Error) -> Error {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Error::Unreachable { registry: host.to_owned(), why: format!("{error}{source}") }
}

impl Body {
    /// The next piece, nothing at the end.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            let Ok(frame) = timeout(self.idle, self.incoming.frame()).await else {
                let why = format!("nothing came for {:?}", self.idle);
                return Err(Error::Unreachable { registry: self.host.clone(), why });
            };
            match frame {
                None => return Ok(None),
                Some(Err(why)) => return Err(broken(&self.host, &why)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it, at most so much.
    pub(super) async fn read(mut self, most: u64, what: &str) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            if (whole.len() + piece.len()) as u64 > most {
                return Err(Error::TooLarge { what: what.to_owned(), most });
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }
}

impl Answer {
    /// The error that it tells.
    pub(super) async fn refusal(self, what: &str) -> Error {
        let asked = self.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        // As a date it would need a clock: then one waits as long as by oneself.
        let retry_after = asked.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
        let status = self.status;
        let text = self.body.read(LARGEST_COMPLAINT, what).await.unwrap_or_default();
        Error::Refused {
            what: what.to_owned(),
            status: status.as_u16(),
            why: complaint(&text, status),
            retry_after,
        }
    }
}

/// What a registry says in `errors`, or what the status means.
fn complaint(text: &[u8], status: StatusCode) -> String {
    #[derive(serde::Deserialize)]
    struct Complaint {
        #[serde(default)]
        errors: Vec<One>,
    }
    #[derive(serde::Deserialize)]
    struct One {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let told =
        serde_json::from_slice(text).map_or_else(|_| Vec::new(), |complaint: Complaint| complaint.errors);
    let told = told.first().map(|one| match (one.code.as_str(), one.message.as_str()) {
        ("", message) => message.to_owned(),
        (code, "") => code.to_ascii_lowercase(),
        (code, message) => format!("{}: {message}", code.to_ascii_lowercase()),
    });
    let told = told.filter(|told| !told.is_empty());
    shortened(&told.unwrap_or_else(|| status.canonical_reason().unwrap_or("no reason").to_owned()))
}
