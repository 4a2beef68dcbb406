//! A link to an etcd that can be slow, silent or cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Each piece takes so long.
    Open(Duration),
    /// Nothing goes through, and nobody gets an error.
    Silent,
    /// Connections end, new ones are refused.
    Cut,
}

pub struct Link {
    pub address: SocketAddr,
    how: Arc<watch::Sender<How>>,
}

impl Link {
    pub async fn to(target: SocketAddr) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let how = Arc::new(watch::Sender::new(How::Open(Duration::ZERO)));
        let seen = how.subscribe();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if *seen.borrow() != How::Cut
                    && let Ok(far) = TcpStream::connect(target).await
                {
                    let (near_reads, near_writes) = near.into_split();
                    let (far_reads, far_writes) = far.into_split();
                    tokio::spawn(pump(near_reads, far_writes, seen.clone()));
                    tokio::spawn(pump(far_reads, near_writes, seen.clone()));
                }
            }
        });
        Link { address, how }
    }

    pub fn set(&self, how: How) {
        self.how.send_replace(how);
    }

    /// Cuts the link, and returns when no connection is left.
    pub async fn cut(&self) {
        self.set(How::Cut);
        // Each direction of a connection listens, and who accepts them.
        crate::etcds::until(|| (self.how.receiver_count() == 1).then_some(())).await;
    }
}

async fn pump(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut how: watch::Receiver<How>,
) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let mut cut = how.clone();
        let read = tokio::select! {
            _ = cut.wait_for(|how| *how == How::Cut) => return,
            read = from.read(&mut buffer) => read,
        };
        let Ok(read @ 1..) = read else { return };
        let state = how.wait_for(|how| *how != How::Silent).await.map(|how| *how);
        match state {
            Ok(How::Open(delay)) => tokio::time::sleep(delay).await,
            _ => return,
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}
