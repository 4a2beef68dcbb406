//! The socket by which a virtual router speaks with its peers on a link.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vrrp::packet::{GROUP, LARGEST, PROTOCOL, TOS, TTL};

use crate::Error;

/// How many packets are read in one go: what comes faster waits, or is lost.
const AT_ONCE: usize = 64;

/// Whether this program may have such sockets at all.
pub(super) fn permitted() -> Result<(), Error> {
    let what = "other virtual routers (VRRP takes the right to use raw sockets, CAP_NET_RAW)";
    raw().map(drop).map_err(|why| Error::Socket { what, why })
}

fn raw() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(i32::from(PROTOCOL))))
}

/// It hears and speaks on one link, from one address.
#[derive(Debug)]
pub(super) struct Speaker {
    socket: AsyncFd<Socket>,
    /// The link's index: a link of the same name may be another one.
    pub link: u32,
    pub address: Ipv4Addr,
}

impl Speaker {
    pub fn open(interface: &str, link: u32, address: Ipv4Addr) -> io::Result<Self> {
        let socket = raw()?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.join_multicast_v4_n(&GROUP, &InterfaceIndexOrAddress::Index(link))?;
        // Also the address that the packets come from.
        socket.set_multicast_if_v4(&address)?;
        socket.set_multicast_ttl_v4(TTL.into())?;
        socket.set_multicast_loop_v4(false)?;
        socket.set_tos_v4(TOS.into())?;
        // SAFETY: a socket keeps its one descriptor, open, until it is dropped with what it is registered in.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Speaker { socket, link, address })
    }

    pub fn send(&self, advert: &vrrp::Advert) -> io::Result<()> {
        let to = SockAddr::from(SocketAddrV4::new(GROUP, 0));
        self.socket.get_ref().send_to(&advert.write(self.address), &to).map(drop)
    }

    /// Waits until there may be something to hear.
    pub async fn readable(&self) {
        // It stays readable until `hear` has found nothing more.
        if let Ok(mut ready) = self.socket.readable().await {
            ready.retain_ready();
        }
    }

    /// The packets that are there.
    pub fn hear(&self) -> Vec<Vec<u8>> {
        let mut packets = Vec::new();
        let mut buffer = [MaybeUninit::uninit(); LARGEST];
        // Without more, or with a link that went away, which is told otherwise, it ends.
        while packets.len() < AT_ONCE
            && let Ok(length) = self.receive(&mut buffer)
        {
            let heard = &buffer[..length];
            // SAFETY: `recv` says how much of the buffer it has written.
            packets.push(heard.iter().map(|byte| unsafe { byte.assume_init() }).collect());
        }
        packets
    }

    fn receive(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match self.socket.try_io(Interest::READABLE, |socket| socket.recv(buffer)) {
            // It answers so without having looked, if the runtime doesn't know yet that something has come.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.get_ref().recv(buffer),
            received => received,
        }
    }
}
