//! Connections: opening one, the pool of idle ones, bodies within bounds, bodies as streams.

use crate::tls::{Greeting, greeting};
use crate::{Error, Kubeconfig};
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use http::{Request, Response as HttpResponse};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::sync::Mutex;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tracing::debug_span;

type Sender = http1::SendRequest<Full<Bytes>>;

/// Idle connections kept; more than this many at a time are closed after their answer.
const IDLE: usize = 16;

/// Where a server is and how to greet it.
pub(crate) struct Endpoint {
    pub(crate) authority: String,
    /// What stands before every path: the path of the server's URL.
    pub(crate) prefix: String,
    host: String,
    port: u16,
    tls: Option<Greeting>,
    idle: Mutex<Vec<Connection>>,
}

/// An open connection and the task that drives it, which ends with it.
pub(crate) struct Connection {
    sender: Sender,
    _driver: Driver,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Endpoint {
    pub(crate) fn new(config: &Kubeconfig) -> Result<Self, Error> {
        let wrong = |why: &str| Error::Kubeconfig {
            origin: config.origin.clone(),
            why: format!("its server {:?} {why}", config.server),
        };
        let url: http::Uri = config.server.parse().map_err(|_| wrong("is not a URL"))?;
        let authority = url.authority().ok_or_else(|| wrong("is not a URL with a host"))?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match url.scheme_str() {
            Some("https") => (Some(greeting(config, &host)?), 443),
            Some("http") => (None, 80),
            _ => return Err(wrong("is neither https:// nor http://")),
        };
        Ok(Endpoint {
            authority: authority.to_string(),
            prefix: url.path().trim_end_matches('/').to_owned(),
            port: authority.port_u16().unwrap_or(port),
            host,
            tls,
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Opens a connection: what to ask on, and what drives it.
    pub(crate) async fn open(&self) -> Result<(Sender, BoxFuture<'static, ()>), Error> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port))
            .await
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|why| Error::Connect { server: self.authority.clone(), why })?;
        match &self.tls {
            None => self.shake_hands(TokioIo::new(tcp)).await,
            Some(Greeting { connector, name }) => {
                let tls = connector
                    .connect(name.clone(), tcp)
                    .await
                    .map_err(|why| Error::tls(&self.authority, &why))?;
                self.shake_hands(TokioIo::new(tls)).await
            }
        }
    }

    async fn shake_hands<I>(&self, io: I) -> Result<(Sender, BoxFuture<'static, ()>), Error>
    where
        I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(io).await.map_err(|e| self.broken(e))?;
        // Its error reaches the caller that waits for an answer on the connection.
        Ok((sender, Box::pin(async move { drop(connection.with_upgrades().await) })))
    }

    pub(crate) async fn connect(&self) -> Result<Connection, Error> {
        let (sender, driver) = self.open().await?;
        Ok(Connection { sender, _driver: Driver(tasks::spawn(debug_span!("connection to the API"), driver)) })
    }

    fn reuse(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        idle.retain(|c| !c.sender.is_closed());
        idle.pop()
    }

    /// Keeps a connection whose last answer was read to its end.
    pub(crate) fn keep(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if !connection.sender.is_closed() && idle.len() < IDLE {
            idle.push(connection);
        }
    }

    /// Closes what is idle: the way to the server has changed.
    pub(crate) fn forget(&self) {
        self.idle.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    }

    /// Sends over an idle connection or a new one. A request that an idle connection could not send any more,
    /// or a read that it broke off, is sent once more over a new one.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpResponse<Incoming>, Connection), Error> {
        // What changes something may have happened although its answer is lost: only a read is repeated by itself.
        let again = (request.method() == http::Method::GET).then(|| request.clone());
        let mut request = Some(request);
        while let Some(mut connection) = self.reuse() {
            if connection.sender.ready().await.is_err() {
                continue;
            }
            let Some(sent) = request.take() else { break };
            match connection.sender.try_send_request(sent).await {
                Ok(response) => return Ok((response, connection)),
                Err(mut error) => {
                    request = error.take_message().or_else(|| again.clone());
                    if request.is_none() {
                        return Err(self.broken(error.into_error()));
                    }
                }
            }
            break;
        }
        // Only an error above takes the request away, and that one returns.
        let Some(request) = request else { return self.send_nothing() };
        self.send_alone(request).await
    }

    /// Sends over a new connection, which the answer may make another protocol's.
    pub(crate) async fn send_alone(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(HttpResponse<Incoming>, Connection), Error> {
        let mut connection = self.connect().await?;
        let response = connection.sender.send_request(request).await.map_err(|e| self.broken(e))?;
        Ok((response, connection))
    }

    fn send_nothing<T>(&self) -> Result<T, Error> {
        Err(Error::Request { path: self.authority.clone(), why: "the request was lost".into() })
    }

    pub(crate) fn broken(&self, error: hyper::Error) -> Error {
        Error::broken(&self.authority, &error)
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read(&self, mut body: Incoming, path: &str, limit: usize) -> Result<Bytes, Error> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|e| self.broken(e))?.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(Error::TooLong { path: path.to_owned(), limit });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }
}

/// A body that goes on: a log that is followed, a watch. Dropping it closes its connection.
pub struct Stream {
    body: Incoming,
    server: String,
    _connection: Connection,
}

impl Stream {
    pub(crate) fn new(body: Incoming, server: String, connection: Connection) -> Self {
        Stream { body, server, _connection: connection }
    }

    /// The next bytes, none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| Error::broken(&self.server, &error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}
