//! Listening on an address before it is this host's.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Socket, Type};

/// A listener on an address that this host doesn't hold yet, or not always: a virtual address. It takes
/// connections whenever the host does hold it (`IP_FREEBIND`, ip(7)). Not blocking, as an asynchronous runtime
/// wants it.
///
/// # Errors
/// What the system says, for example that the port is in use.
pub fn listen_before_held(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = before_held(address, Type::STREAM)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    Ok(socket.into())
}

/// The same for datagrams.
///
/// # Errors
/// Likewise.
pub(crate) fn bind_before_held(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = before_held(address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn before_held(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
