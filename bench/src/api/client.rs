//! A client that costs next to nothing, so that what is measured is the server: HTTP/1.1 over TLS by hand, one
//! request at a time.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// One connection.
pub struct Client {
    stream: TlsStream<TcpStream>,
    /// What was read and is not used yet.
    buffer: Vec<u8>,
    /// How much of it was used.
    used: usize,
}

impl Client {
    /// Connects.
    pub async fn connect(address: SocketAddr, tls: &Arc<ClientConfig>) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await?;
        Ok(Client { stream, buffer: Vec::with_capacity(16 << 10), used: 0 })
    }

    /// Sends a request and reads the answer to its end; the answer is its length.
    ///
    /// # Errors
    /// If the connection breaks, or the answer's code is not 2xx.
    pub async fn ask(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> anyhow::Result<usize> {
        let (code, length) = self.try_ask(method, path, media_type, body).await?;
        ensure!((200..300).contains(&code), "{method} {path}: the API answered {code}");
        Ok(length)
    }

    /// Likewise; the answer is its code and length, whatever the code is.
    ///
    /// # Errors
    /// If the connection breaks.
    pub async fn try_ask(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> anyhow::Result<(u16, usize)> {
        self.send(method, path, media_type, body).await?;
        let (code, length) = self.head().await?;
        let length = match length {
            Some(length) => {
                self.skip(length).await?;
                length
            }
            None => {
                let mut whole = 0;
                loop {
                    let chunk = self.chunk().await?.len();
                    if chunk == 0 {
                        break whole;
                    }
                    whole += chunk;
                }
            }
        };
        Ok((code, length))
    }

    /// Starts a watch; its events come by [`Client::chunk`].
    pub async fn watch(&mut self, path: &str) -> anyhow::Result<()> {
        self.send("GET", path, "application/json", "").await?;
        let (code, length) = self.head().await?;
        ensure!(code == 200 && length.is_none(), "GET {path}: the API answered {code}");
        Ok(())
    }

    /// Sends a request and doesn't read its answer.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        media_type: &str,
        body: &str,
    ) -> anyhow::Result<()> {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\naccept: application/json\r\ncontent-type: {media_type}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.write_all(request.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    async fn more(&mut self) -> anyhow::Result<()> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        }
        ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the API closed the connection");
        Ok(())
    }

    /// What is up to a mark, which is taken away with it.
    async fn until(&mut self, mark: &[u8]) -> anyhow::Result<Vec<u8>> {
        loop {
            let unused = &self.buffer[self.used..];
            if let Some(at) = unused.windows(mark.len()).position(|window| window == mark) {
                let found = unused[..at].to_vec();
                self.used += at + mark.len();
                return Ok(found);
            }
            self.more().await?;
        }
    }

    /// The code of an answer and its length; none if it comes in chunks.
    async fn head(&mut self) -> anyhow::Result<(u16, Option<usize>)> {
        let head = String::from_utf8(self.until(b"\r\n\r\n").await?)?.to_ascii_lowercase();
        let code =
            head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("an answer without a code")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        Ok((code, length.map(|length| length.trim().parse()).transpose()?))
    }

    async fn skip(&mut self, mut length: usize) -> anyhow::Result<()> {
        loop {
            let taken = length.min(self.buffer.len() - self.used);
            self.used += taken;
            length -= taken;
            if length == 0 {
                return Ok(());
            }
            self.more().await?;
        }
    }

    /// The next chunk; empty at the end.
    pub async fn chunk(&mut self) -> anyhow::Result<Vec<u8>> {
        let size = self.until(b"\r\n").await?;
        let Ok(length) = usize::from_str_radix(std::str::from_utf8(&size)?, 16) else {
            bail!("a chunk without a size")
        };
        while self.buffer.len() - self.used < length + 2 {
            self.more().await?;
        }
        let chunk = self.buffer[self.used..self.used + length].to_vec();
        self.used += length + 2;
        Ok(chunk)
    }
}
