//! A minimal client of etcd's gRPC API (`api/etcdserverpb/rpc.proto` of etcd 3.4): the few calls that are
//! measured, their messages written by hand with only the fields that are used.

use std::path::Path;

use anyhow::Context;
use bytes::Bytes;
use futures::stream;
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

/// A range of 10,000 keys of 1 KiB fits, and is not held up by flow control.
const LARGEST_ANSWER: usize = 64 << 20;
const WINDOW: u32 = 16 << 20;

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

/// The answer to a range.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RangeResponse {
    /// The keys.
    #[prost(message, repeated, tag = "2")]
    pub kvs: Vec<KeyValue>,
}

/// A key and its value.
#[derive(Clone, PartialEq, prost::Message)]
pub struct KeyValue {
    /// The key.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// The value.
    #[prost(bytes = "bytes", tag = "5")]
    pub value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create: Option<WatchCreate>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreate {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

/// What a watch stream tells.
#[derive(Clone, PartialEq, prost::Message)]
pub struct WatchResponse {
    /// Whether a watcher was made.
    #[prost(bool, tag = "3")]
    pub created: bool,
    /// Whether a watcher ended.
    #[prost(bool, tag = "4")]
    pub canceled: bool,
    /// What changed for one watcher.
    #[prost(message, repeated, tag = "11")]
    pub events: Vec<Event>,
}

/// One change.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// The key as it is now.
    #[prost(message, optional, tag = "2")]
    pub kv: Option<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<Header>,
    #[prost(uint64, tag = "4")]
    leader: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Header {
    #[prost(uint64, tag = "2")]
    member_id: u64,
}

/// One HTTP/2 connection to one member.
#[derive(Debug, Clone)]
pub struct Connection(Grpc<Channel>);

impl Connection {
    /// Connects with the certificates in `pki`: `ca.crt`, `NAME.crt` and `NAME.key`.
    pub async fn open(endpoint: &str, pki: &Path, name: &str) -> anyhow::Result<Self> {
        let read =
            |file: String| std::fs::read(pki.join(&file)).with_context(|| format!("can't read {file}"));
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(read("ca.crt".into())?))
            .identity(Identity::from_pem(read(format!("{name}.crt"))?, read(format!("{name}.key"))?));
        let channel = Endpoint::from_shared(endpoint.to_owned())?
            .tls_config(tls)?
            .tcp_nodelay(true)
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .connect()
            .await?;
        Ok(Connection(Grpc::new(channel).max_decoding_message_size(LARGEST_ANSWER)))
    }

    async fn call<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let answer = grpc.unary(Request::new(request), PathAndQuery::from_static(path), codec).await?;
        Ok(answer.into_inner())
    }

    /// Writes a key.
    pub async fn put(&self, key: Bytes, value: Bytes) -> Result<(), Status> {
        self.call("/etcdserverpb.KV/Put", PutRequest { key, value }).await.map(|PutResponse {}| ())
    }

    /// Reads one key, or from it up to `end`; from the member alone if `stale`.
    pub async fn range(&self, key: Bytes, end: Option<Bytes>, stale: bool) -> Result<RangeResponse, Status> {
        let request = RangeRequest { key, range_end: end.unwrap_or_default(), serializable: stale };
        self.call("/etcdserverpb.KV/Range", request).await
    }

    /// Watches keys over one stream.
    pub async fn watch(&self, keys: Vec<Bytes>) -> Result<Streaming<WatchResponse>, Status> {
        let mut grpc = self.0.clone();
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let create = |key| WatchRequest { create: Some(WatchCreate { key }) };
        let mut keys = keys.into_iter();
        // The stream of requests stays open: its end would end the watch.
        let requests = stream::poll_fn(move |_| match keys.next() {
            Some(key) => std::task::Poll::Ready(Some(create(key))),
            None => std::task::Poll::Pending,
        });
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        Ok(grpc.streaming(Request::new(requests), path, ProstCodec::default()).await?.into_inner())
    }

    /// Whether this member leads.
    pub async fn leads(&self) -> Result<bool, Status> {
        let status: StatusResponse = self.call("/etcdserverpb.Maintenance/Status", StatusRequest {}).await?;
        Ok(status.leader != 0 && status.header.is_some_and(|header| header.member_id == status.leader))
    }
}
