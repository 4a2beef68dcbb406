//! Passing a connection on, with its ends as they really happen: FIN as FIN, RST as RST, silence as silence.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_ok;
use tasks::SpawnIn;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tracing::{debug_span, info_span};

/// How long a connection may take to come about before the caller is let go.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// How much later each further target is tried.
const HEAD_START: Duration = Duration::from_millis(200);
/// How long to wait when the system has no more descriptors.
const EXHAUSTED: Duration = Duration::from_millis(20);

/// Copies between two connections until both are done. An error on one side resets the other.
pub async fn splice(near: &mut TcpStream, far: &mut TcpStream) {
    // Delay is a matter of speed alone.
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    if copy_bidirectional(near, far).await.is_err() {
        reset(near);
        reset(far);
    }
}

/// Makes the end of this connection a RST instead of a FIN.
pub fn reset(connection: &TcpStream) {
    // A connection that is gone needs no reset.
    let _ = socket2::SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// The next connection, whatever goes wrong with those before it.
pub async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => return connection,
            Err(error) if is_exhausted(&error) => tokio::time::sleep(EXHAUSTED).await,
            // The caller went away before it was accepted.
            Err(_) => tokio::task::yield_now().await,
        }
    }
}

fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM))
}

/// A port that is passed on; ends, with its connections, when dropped.
#[derive(Debug)]
pub struct Forward {
    task: JoinHandle<()>,
    address: SocketAddr,
}

impl Forward {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes every connection to `listener` on to the first of `to` that takes it. The listener may have been bound in another network
/// namespace (before [`Island::enter`](crate::Island::enter)): the connections to `to` are made in this one.
pub fn forward(listener: std::net::TcpListener, to: Vec<SocketAddr>) -> io::Result<Forward> {
    let to: Arc<[SocketAddr]> = to.into();
    forward_by(listener, move |near| pass_on(near, to.clone()))
}

/// Passes every connection to `listener` on by `pass_on`.
pub fn forward_by<P: Future<Output = ()> + Send + 'static>(
    listener: std::net::TcpListener,
    pass_on: impl Fn(TcpStream) -> P + Send + 'static,
) -> io::Result<Forward> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let address = listener.local_addr()?;
    let task = tasks::spawn(info_span!("forward", %address), async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                near = accept(&listener) => {
                    connections.spawn_in(debug_span!("connection"), pass_on(near));
                }
                Some(_) = connections.join_next() => {}
            }
        }
    });
    Ok(Forward { task, address })
}

async fn pass_on(mut near: TcpStream, to: Arc<[SocketAddr]>) {
    // A host whose power was cut refuses nothing: the next one is tried beside it.
    let tries = (0..).zip(to.iter()).map(|(turn, address)| {
        Box::pin(async move {
            tokio::time::sleep(HEAD_START * turn).await;
            TcpStream::connect(address).await
        })
    });
    match tokio::time::timeout(PATIENCE, select_ok(tries)).await {
        Ok(Ok((mut far, _))) => splice(&mut near, &mut far).await,
        Ok(Err(_)) | Err(_) => reset(&near),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair() -> (Forward, TcpStream, TcpStream) {
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let forward = forward(listener, vec![target.local_addr().unwrap()]).unwrap();
        let near = TcpStream::connect(forward.address()).await.unwrap();
        let far = target.accept().await.unwrap().0;
        (forward, near, far)
    }

    #[tokio::test]
    async fn bytes_and_a_half_close_go_through() {
        let (_forward, mut near, mut far) = pair().await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        far.write_all(b"answer").await.unwrap();
        drop(far);
        near.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "questionanswer");
    }

    #[tokio::test]
    async fn a_reset_is_passed_on_as_a_reset() {
        let (_forward, mut near, far) = pair().await;
        reset(&far);
        drop(far);
        let error = near.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_a_reset() {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let forward = forward(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), vec![refusing]).unwrap();
        let mut near = TcpStream::connect(forward.address()).await.unwrap();
        assert_eq!(near.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn the_first_target_that_takes_it_gets_the_connection() {
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = vec![refusing, target.local_addr().unwrap()];
        let forward = forward(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), to).unwrap();
        let mut near = TcpStream::connect(forward.address()).await.unwrap();
        target.accept().await.unwrap().0.write_all(b"x").await.unwrap();
        assert_eq!(near.read_u8().await.unwrap(), b'x');
    }

    #[tokio::test]
    async fn a_dropped_forward_lets_its_connections_go() {
        let (forward, mut near, _far) = pair().await;
        drop(forward);
        assert!(near.read_u8().await.is_err());
    }
}
