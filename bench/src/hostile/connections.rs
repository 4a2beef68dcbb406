//! Connections that are opened and left so.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;

use super::Figures;
use crate::api::hosts::Hosts;
use crate::process::open_files;

/// How long connections are held.
const HELD: Duration = Duration::from_secs(8);
/// How many addresses connections come from, as if from many machines.
const ADDRESSES: usize = 100;

/// Connects from one of the addresses.
async fn connect(number: usize, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    let from = Ipv4Addr::new(127, 77, 0, (number % ADDRESSES) as u8 + 1);
    socket.bind(SocketAddr::new(from.into(), 0))?;
    socket.connect(to).await
}

/// Connections without a word, of nobody; from many addresses.
pub async fn idle(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let before = open_files(hosts.first())?;
    let (mut held, mut most) = (Vec::new(), 0);
    for number in 0..count {
        // What the host has no place for waits in the kernel, or is refused.
        let connected = connect(number, hosts.addresses[0]);
        if let Ok(Ok(stream)) = timeout(Duration::from_secs(1), connected).await {
            held.push(stream);
        }
        if number % 100 == 0 {
            most = most.max(open_files(hosts.first())?);
        }
    }
    for _ in 0..HELD.as_secs() {
        most = most.max(open_files(hosts.first())?);
        sleep(Duration::from_secs(1)).await;
    }
    let opened = held.len() as f64;
    drop(held);
    Ok(vec![("opened", opened), ("files_before", before as f64), ("files_most", most as f64)])
}

/// TLS connections of nobody, from many addresses, whose request's headers come byte by byte, and never end; how long the last of them lived.
#[allow(clippy::disallowed_methods, reason = "it measures")]
pub async fn slow_headers(hosts: &Hosts, count: usize) -> anyhow::Result<Figures> {
    let (begin, mut sending) = (Instant::now(), JoinSet::new());
    let nobody = pki::client_config_for_anyone()?;
    for number in 0..count {
        let (address, tls) = (hosts.addresses[0], TlsConnector::from(nobody.clone()));
        sending.spawn(async move {
            let Ok(stream) = connect(number, address).await else { return };
            let name = ServerName::IpAddress(address.ip().into());
            let Ok(mut stream) = tls.connect(name, stream).await else { return };
            let _ = stream.write_all(b"GET /api/v1/nodes HTTP/1.1\r\nx: ").await;
            let mut heard = [0; 1024];
            loop {
                match timeout(Duration::from_millis(100), stream.read(&mut heard)).await {
                    Ok(Ok(length)) if length > 0 => {}
                    Ok(_) => return,
                    Err(_) if stream.write_all(b"x").await.is_err() => return,
                    Err(_) => {}
                }
            }
        });
    }
    while sending.join_next().await.is_some() {}
    Ok(vec![("connections", count as f64), ("longest_s", begin.elapsed().as_secs_f64())])
}
