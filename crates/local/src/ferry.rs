//! Connections to the network that this process has left: made by a child that stayed there, and handed over.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::cmsg_space;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};
use nix::unistd::{ForkResult, fork, setsid};
use socket2::{Domain, Socket, Type};
use tokio::net::TcpStream;
use tracing::debug_span;

use crate::relay::{Forward, forward_by, reset, splice};
use crate::single_thread::is_single_threaded;

/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(2);

/// The way to one place in the network that this process has left. It ends when this is dropped.
#[derive(Debug)]
pub struct Ferry {
    /// One at a time: a place that doesn't answer holds up nobody who wants to go elsewhere.
    child: Mutex<OwnedFd>,
}

impl Ferry {
    /// Prepares the way to `host`, by name or address. Must be called before this process has a second thread.
    pub fn launch(host: &str, port: u16) -> io::Result<Self> {
        if !is_single_threaded()? {
            return Err(io::Error::other("a ferry must be launched before the first thread starts"));
        }
        let (near, far) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the process has one thread, so the child inherits no lock that another thread holds.
        match unsafe { fork() }? {
            ForkResult::Child => {
                drop(near);
                // Out of reach of the terminal's signals: it ends with its parent.
                let _ = setsid();
                let _ = prctl::set_pdeathsig(Signal::SIGKILL);
                let _ = carry(far, host, port);
                // SAFETY: ends the child without running what the parent registered for its own exit.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { .. } => Ok(Ferry { child: Mutex::new(near) }),
        }
    }

    /// A new connection.
    fn cross(&self) -> io::Result<std::net::TcpStream> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        File::from(child.try_clone()?).write_all(&[1])?;
        let mut word = [0];
        let mut space = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut word)];
        let message =
            recvmsg::<()>(child.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(handed) = control
                && let Some(descriptor) = handed.first()
            {
                // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
                return Ok(std::net::TcpStream::from(unsafe { OwnedFd::from_raw_fd(*descriptor) }));
            }
        }
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}

/// The child's life: a connection for each word, until nobody is left to want one.
fn carry(parent: OwnedFd, host: &str, port: u16) -> io::Result<()> {
    let mut asked = File::from(parent.try_clone()?);
    while asked.read(&mut [0])? == 1 {
        let connected = (host, port).to_socket_addrs().and_then(|addresses| {
            let mut outcome = Err(io::ErrorKind::NotFound.into());
            for address in addresses {
                outcome = std::net::TcpStream::connect_timeout(&address, PATIENCE);
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        });
        let descriptors: Vec<RawFd> = connected.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let controls = if descriptors.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(parent.as_fd().as_raw_fd(), &[IoSlice::new(&[1])], controls, MsgFlags::empty(), None)?;
    }
    Ok(())
}

/// A port of the island's switch whose connections cross over.
#[derive(Debug)]
pub struct Crossing {
    listener: TcpListener,
    ferry: Ferry,
}

impl Crossing {
    /// Binds the port, which nobody needs to have yet.
    pub fn bind(at: SocketAddr, ferry: Ferry) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM.nonblocking(), None)?;
        socket.set_freebind_v4(true)?;
        socket.bind(&at.into())?;
        socket.listen(1024)?;
        Ok(Crossing { listener: socket.into(), ferry })
    }

    /// Carries what comes, until the answer is dropped.
    pub fn open(self) -> io::Result<Forward> {
        let ferry = Arc::new(self.ferry);
        forward_by(self.listener, move |near| cross(near, ferry.clone()))
    }
}

async fn cross(mut near: TcpStream, ferry: Arc<Ferry>) {
    let far = tasks::blocking(debug_span!("cross"), move || ferry.cross()).await;
    let far = far.map_err(io::Error::other).flatten().and_then(|far| {
        far.set_nonblocking(true)?;
        TcpStream::from_std(far)
    });
    match far {
        Ok(mut far) => splice(&mut near, &mut far).await,
        Err(_) => reset(&near),
    }
}
