//! The socket by which a virtual router speaks with its peers on a link.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, SockFilter, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use vrrp::packet::{GROUP, LARGEST, PROTOCOL, TOS, TTL};

use crate::Error;

/// How many packets are read in one go: what comes faster waits, or is lost. More than a link's virtual routers say in that time.
pub(super) const AT_ONCE: usize = 16;

/// Whether this program may have such sockets at all.
pub(super) fn permitted() -> Result<(), Error> {
    let what = "other virtual routers (VRRP takes the right to use raw sockets, CAP_NET_RAW)";
    raw().map(drop).map_err(|why| Error::Socket { what, why })
}

fn raw() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW.nonblocking().cloexec(), Some(Protocol::from(i32::from(PROTOCOL))))
}

/// The program by which the kernel drops what isn't for one virtual router: what others say, or flood the link with, wakes nobody (Linux'
/// networking/filter). The number is the second byte of VRRP, behind a header of IP that says how long it is.
fn only(router_id: u8) -> [SockFilter; 5] {
    let code = |parts: &[u32]| parts.iter().try_fold(0, |all, part| Some(all | u16::try_from(*part).ok()?));
    let step = |parts: &[u32], jump_false, number| {
        SockFilter::new(code(parts).unwrap_or_default(), 0, jump_false, number)
    };
    [
        step(&[libc::BPF_LDX, libc::BPF_B, libc::BPF_MSH], 0, 0),
        step(&[libc::BPF_LD, libc::BPF_B, libc::BPF_IND], 0, 1),
        step(&[libc::BPF_JMP, libc::BPF_JEQ, libc::BPF_K], 1, router_id.into()),
        step(&[libc::BPF_RET, libc::BPF_K], 0, u32::MAX),
        step(&[libc::BPF_RET, libc::BPF_K], 0, 0),
    ]
}

/// It hears and speaks on one link, from one address, for one virtual router.
#[derive(Debug)]
pub(super) struct Speaker {
    socket: AsyncFd<Socket>,
    /// The link's index: a link of the same name may be another one.
    pub link: u32,
    pub address: Ipv4Addr,
}

impl Speaker {
    pub fn open(interface: &str, link: u32, address: Ipv4Addr, router_id: u8) -> io::Result<Self> {
        let socket = raw()?;
        socket.attach_filter(&only(router_id))?;
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
        // Without more, or with a link that went away, which netlink reports, it ends.
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;
    use vrrp::Advert;

    use super::*;
    use crate::netlink::Netlink;
    use crate::netlink::tests::{in_namespace, ip, pair};

    /// Long enough for any machine; nothing waits for it unless something is wrong.
    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn only_what_is_for_its_virtual_router_is_heard_and_not_all_of_that_at_once() {
        if !testing::has("ip") {
            return;
        }
        in_namespace("only_what_is_for_its_virtual_router", || async {
            let (near, far) = pair(&Netlink::open().unwrap()).await;
            ip("address add 10.73.0.2/24 dev far");
            // Both ends are here: what comes from the one bears an address that is the host's own.
            for (setting, value) in
                [("eth0/accept_local", "1"), ("eth0/rp_filter", "0"), ("all/rp_filter", "0")]
            {
                if let Err(why) = std::fs::write(format!("/proc/sys/net/ipv4/conf/{setting}"), value) {
                    return testing::skip("netns", format_args!("{setting} can't be set ({why})"));
                }
            }
            let (one, other) = ([10, 73, 0, 1].into(), [10, 73, 0, 2].into());
            let ours = Speaker::open("eth0", near.index, one, 51).unwrap();
            let theirs = Speaker::open("far", far.index, other, 52).unwrap();
            let advert =
                |router_id| Advert { router_id, priority: 100, centiseconds: 100, addresses: vec![one] };
            let heard = async {
                loop {
                    // A link that was just switched on loses what is sent at first. What is first is not for it.
                    for _ in 0..AT_ONCE {
                        theirs.send(&advert(50)).unwrap();
                        theirs.send(&advert(52)).unwrap();
                        theirs.send(&advert(51)).unwrap();
                    }
                    ours.readable().await;
                    let packets = ours.hear();
                    assert!(packets.len() <= AT_ONCE, "{}", packets.len());
                    let read = packets.iter().filter_map(|packet| Advert::read(packet).ok());
                    let heard: Vec<_> = read.map(|(_, advert)| advert.router_id).collect();
                    assert!(heard.iter().all(|router_id| *router_id == 51), "{heard:?}");
                    if heard.len() == AT_ONCE {
                        return;
                    }
                }
            };
            timeout(SOON, heard).await.expect("what is for it is heard");
        });
    }
}
