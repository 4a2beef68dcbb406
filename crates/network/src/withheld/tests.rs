//! Two hosts and a caller on one link, each in a network namespace of its own.

use std::io::Write;
use std::net::TcpStream;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;

use super::*;
use crate::listen_before_held;
use crate::netlink::tests::{in_namespace, ip};

const VIP: &str = "10.73.0.100:6443";
const CALLER: Ipv4Addr = Ipv4Addr::new(10, 73, 0, 9);
/// Long enough for any machine; nothing waits for it unless something is wrong.
const SOON: Duration = Duration::from_secs(20);

/// A host on a bridge of the namespace that made it.
struct Host(Sender<Box<dyn FnOnce() + Send>>);

impl Host {
    fn plug(number: u8) -> Host {
        let (todo, work) = channel::<Box<dyn FnOnce() + Send>>();
        let (tell, told) = channel();
        thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(gettid()).unwrap();
            work.into_iter().for_each(|job| job());
        });
        let thread = told.recv().unwrap();
        ip(&format!("link add port{number} type veth peer name eth0 netns {thread}"));
        ip(&format!("link set port{number} up master bridge"));
        let host = Host(todo);
        host.does(move || {
            ip("link set lo up");
            ip("link set eth0 up");
            ip(&format!("address add 10.73.0.{number}/24 dev eth0"));
        });
        host
    }

    /// Does something there, and waits for it.
    fn does<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.0.send(Box::new(move || _ = done.send(what()))).unwrap();
        result.recv().unwrap()
    }
}

fn listen() -> TcpListener {
    let listener = listen_before_held(VIP.parse().unwrap()).unwrap();
    listener.set_nonblocking(false).unwrap();
    listener
}

/// What begins a connection, once: who sends it doesn't send it again, as a kernel would, and leaves the checksum to others.
fn call(port: u16) -> Vec<u8> {
    let header = [
        &port.to_be_bytes()[..],
        &6443u16.to_be_bytes(),
        &[0; 8],
        &[0x50, SYN as u8, 0xff, 0xff, 0, 0, 0, 0],
    ];
    header.concat()
}

/// Waits for the answer to a call from a port.
fn is_answered(caller: &Socket, port: u16) {
    let mut buffer = [0; LONGEST];
    loop {
        let length = { caller }.read(&mut buffer).expect("it is answered");
        let to = &buffer[20..length][2..4];
        if to == port.to_be_bytes() && u32::from(buffer[20 + FLAGS as usize]) == SYN | ACK {
            return;
        }
    }
}

#[test]
fn who_calls_an_address_that_moves_is_answered_by_its_next_host() {
    if !testing::has("ip") {
        return;
    }
    in_namespace("who_calls_an_address_that_moves", || async {
        for line in
            ["link add bridge type bridge", "link set bridge up", "address add 10.73.0.9/24 dev bridge"]
        {
            ip(line);
        }
        let (first, next) = (Host::plug(1), Host::plug(2));
        let caller = Socket::new(Domain::IPV4, Type::RAW.cloexec(), Some(Protocol::TCP)).unwrap();
        caller.bind(&SocketAddr::from((CALLER, 0)).into()).unwrap();
        caller.set_read_timeout(Some(SOON)).unwrap();
        let to = VIP.parse::<SocketAddr>().unwrap().into();

        let listener = first.does(|| {
            ip("address add 10.73.0.100/32 dev eth0");
            listen()
        });
        let mut before = TcpStream::connect(VIP).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        let (listener, withheld) = first.does(move || {
            let withheld = withhold(&listener).unwrap().unwrap();
            (listener, withheld)
        });
        caller.send_to(&call(2000), &to).unwrap();
        withheld.callers.set_nonblocking(false).unwrap();
        withheld.callers.set_read_timeout(Some(SOON)).unwrap();
        // It has come, and stays where it is.
        assert!(withheld.callers.peek(&mut [std::mem::MaybeUninit::uninit(); 1]).is_ok());
        withheld.callers.set_nonblocking(true).unwrap();

        // What has begun goes on, and programs of the host itself get through.
        before.write_all(b"a").unwrap();
        assert_eq!(accepted.read(&mut [0; 2]).unwrap(), 1);
        let (listener, own) = first.does(move || {
            let own = TcpStream::connect_timeout(&VIP.parse().unwrap(), SOON);
            (listener, own.map(drop))
        });
        own.unwrap();

        let next_listener = next.does(listen);
        first.does(move || {
            drop((listener, accepted));
            ip("address del 10.73.0.100/32 dev eth0");
            withheld.pass_on().unwrap();
        });
        next.does(|| ip("address add 10.73.0.100/32 dev eth0"));
        is_answered(&caller, 2000);
        drop(next_listener);
    });
}

#[test]
fn a_checksum_is_put_in() {
    // 10.73.0.9:2000 calls 10.73.0.100:6443, as the kernel would.
    let mut packet = vec![0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 73, 0, 9, 10, 73, 0, 100];
    packet.extend(call(2000));
    complete(&mut packet).unwrap();
    let words = packet[12..].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    // With what is pretended: the protocol, and the length.
    let sum = words.sum::<u32>() + 6 + 20;
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    for cut in 0..packet.len() {
        let is_whole = cut >= 20 + CHECKSUM + 2;
        assert_eq!(complete(&mut packet[..cut].to_vec()).is_some(), is_whole, "{cut}");
    }
}
