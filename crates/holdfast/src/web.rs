//! `holdfast web`: the small web server that a drill's workload runs. It answers with its pod's name,
//! and says which process it is and on which host, so that a drill can tell two of one name apart.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

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
    /// The host that it runs on, for the answer
    #[arg(long, env = "NODE_NAME")]
    host: Option<String>,
}

/// What each request is answered with. A drill looks for the lines `instance` and `host`.
fn words(name: &str, instance: u64, host: Option<&str>) -> String {
    let host = host.map(|host| format!("host: {host}\n")).unwrap_or_default();
    format!("{name}\ninstance: {instance:016x}\n{host}")
}

/// Serves until it is ended.
#[allow(
    clippy::disallowed_methods,
    reason = "each process of a workload is to be known from the next one by chance alone"
)]
pub async fn run(args: Args) -> anyhow::Result<()> {
    let address = SocketAddr::new(args.address, args.port);
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("can't listen on {address}: is another server there?"))?;
    let body: Arc<str> = words(&args.name, rand::random(), args.host.as_deref()).into();
    loop {
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("can't accept a connection: {error}");
                tokio::task::yield_now().await;
                continue;
            }
        };
        tasks::spawn(info_span!("answer"), answer(stream, body.clone()));
    }
}

/// Reads one request's head and answers it. Bodies are of no interest, and the connection ends here.
async fn answer(mut stream: TcpStream, body: Arc<str>) -> std::io::Result<()> {
    const LONGEST_HEAD: usize = 16 << 10;
    let mut head = Vec::new();
    while !head.windows(4).any(|w| w == b"\r\n\r\n") && head.len() < LONGEST_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let response = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_which_process_gave_it() {
        assert_eq!(words("db-0", 0xa1, Some("n2")), "db-0\ninstance: 00000000000000a1\nhost: n2\n");
        assert_eq!(words("nameless", 1, None), "nameless\ninstance: 0000000000000001\n");
    }
}
