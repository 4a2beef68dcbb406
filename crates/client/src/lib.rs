//! A small Kubernetes client: kubeconfig, requests, watches, discovery, apply.
//!
//! [`Kubeconfig`] says where the API server is and who asks; [`Client`] asks it: over pooled connections,
//! over a connection of its own each ([`Client::fresh`], for probes), or as a stream ([`Client::watch`],
//! [`Client::stream`]). [`Discovery`] finds a resource by whatever people call it, [`apply`] brings an object
//! of a manifest into the cluster the way `kubectl apply` does. It knows nothing of Holdfast: it asks any
//! Kubernetes.
//!
//! ```
//! use client::{Client, Kubeconfig};
//! # use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # tokio::spawn(async move {
//! #     let (mut asked, _) = listener.accept().await?;
//! #     asked.read(&mut [0; 4096]).await?;
//! #     let list = r#"{"kind":"PodList","apiVersion":"v1","items":[{"metadata":{"name":"web"}}]}"#;
//! #     let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", list.len());
//! #     asked.write_all((head + list).as_bytes()).await
//! # });
//!
//! // As behind `kubectl proxy`; `Kubeconfig::find` finds the cluster that kubectl speaks to.
//! let client = Client::new(&Kubeconfig::anonymous(format!("http://{address}")))?;
//! let pods = client.get("/api/v1/namespaces/default/pods").await?;
//! assert_eq!(pods["items"][0]["metadata"]["name"], "web");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod apply;
mod client;
mod connection;
mod discovery;
mod error;
mod exec;
mod kubeconfig;
mod manifest;
mod path;
mod response;
mod schema;
mod three_way;
mod tls;
mod watch;

pub use apply::{Applied, apply};
pub use client::{Client, Content};
pub use connection::Stream;
pub use discovery::{Discovery, Resource};
pub use error::{Error, ServerStatus};
pub use exec::{Input, Output, Piece};
pub use kubeconfig::Kubeconfig;
pub use manifest::documents;
pub use path::with_query;
pub use response::{Answer, AskFailure, Response};
pub use watch::{Watch, WatchEvent, WatchKind};

#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
