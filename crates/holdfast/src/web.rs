//! `holdfast web`: the small web server that a drill's workload runs. It answers with its pod's name.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracing::info_span;

/// Arguments of `holdfast web`.
#[derive(clap::Args)]
pub struct Args {
    /// The address to listen on [default: the pod's own, else all]
    #[arg(long, env = "POD_IP", default_value = "0.0.0.0")]
    address: IpAddr,
    /// The port to listen on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// What to answer with
    #[arg(long, env = "HOSTNAME", default_value = "nameless")]
    name: String,
}

/// Serves until it is ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let address = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}: is another server there?"))?;
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("can't accept a connection: {error}");
                tokio::task::yield_now().await;
                continue;
            }
        };
        tasks::spawn(info_span!("answer"), answer(stream, args.name.clone()));
    }
}

/// Reads one request's head and answers it. Bodies are of no interest, and the connection ends here.
async fn answer(mut stream: TcpStream, name: String) -> std::io::Result<()> {
    const LONGEST_HEAD: usize = 16 << 10;
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let body = format!("{name}\n");
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
