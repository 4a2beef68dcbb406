//! Who listens on which port, as /proc/net and the processes' descriptors show it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::processes;
use crate::facts::{Holder, Listening, Protocol};

/// The states of sockets that wait for others (include/net/tcp_states.h): TCP_LISTEN, and TCP_CLOSE for UDP.
const LISTENS: &str = "0A";
const BOUND: &str = "07";

/// The sockets on some ports, and who holds them.
pub(super) fn listening(ports: &[u16]) -> Option<Vec<Listening>> {
    let files = [
        ("tcp", Protocol::Tcp, LISTENS),
        ("tcp6", Protocol::Tcp, LISTENS),
        ("udp", Protocol::Udp, BOUND),
        ("udp6", Protocol::Udp, BOUND),
    ];
    let mut found = Vec::new();
    for (file, protocol, state) in files {
        match fs::read_to_string(format!("/proc/self/net/{file}")) {
            Ok(table) => found.extend(
                parse(&table, state)
                    .filter(|(at, _)| ports.contains(&at.port()))
                    .map(|(at, inode)| (protocol, at, inode)),
            ),
            // A kernel without IPv6 has no such file.
            Err(_) if file.ends_with('6') => {}
            Err(_) => return None,
        }
    }
    let inodes: Vec<u64> = found.iter().map(|(.., inode)| *inode).collect();
    let holders = if inodes.is_empty() { BTreeMap::new() } else { holders(&inodes) };
    let listening = found.into_iter().map(|(protocol, at, inode)| Listening {
        protocol,
        at,
        holder: holders.get(&inode).cloned(),
    });
    Some(listening.collect())
}

/// Addresses with the inodes of their sockets.
fn parse<'a>(table: &'a str, state: &'a str) -> impl Iterator<Item = (SocketAddr, u64)> + 'a {
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let at = fields.nth(1)?;
        if fields.nth(1)? != state {
            return None;
        }
        Some((address(at)?, fields.nth(5)?.parse().ok()?))
    })
}

/// `0100007F:1F90`: words of 32 bits in the machine's own order.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let word = |place: usize| {
        Some(u32::from_str_radix(address.get(place * 8..place * 8 + 8)?, 16).ok()?.to_ne_bytes())
    };
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            let bytes: [u8; 16] = words.concat().try_into().ok()?;
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

fn holders(inodes: &[u64]) -> BTreeMap<u64, Holder> {
    let mut holders = BTreeMap::new();
    for (pid, folder) in processes::all() {
        let descriptors = fs::read_dir(folder.join("fd")).into_iter().flatten().filter_map(Result::ok);
        for descriptor in descriptors {
            let Ok(target) = fs::read_link(descriptor.path()) else { continue };
            let inode = target
                .to_str()
                .and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
            if let Some(inode) = inode.filter(|inode| inodes.contains(inode)) {
                holders.entry(inode).or_insert_with(|| processes::holder(pid, &folder));
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;

    #[test]
    fn a_socket_is_found_with_its_holder() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let idle = std::net::TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let ports = [tcp.local_addr(), udp.local_addr(), idle.local_addr()].map(|at| at.unwrap().port());
        let found = listening(&ports).unwrap();
        let of = |protocol| found.iter().find(|socket| socket.protocol == protocol).unwrap();
        assert_eq!(of(Protocol::Tcp).at, tcp.local_addr().unwrap());
        assert_eq!(of(Protocol::Udp).at, udp.local_addr().unwrap());
        let holder = of(Protocol::Tcp).holder.clone().unwrap();
        assert_eq!((holder.pid, holder.is_ours), (std::process::id(), true));
        assert!(found.iter().all(|socket| socket.at.port() != ports[2]), "a connection doesn't listen");
    }

    #[test]
    fn addresses_are_read_in_both_families() {
        let own = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
        assert_eq!(
            address(&format!("{}:1F90", own([127, 0, 0, 1]))),
            Some("127.0.0.1:8080".parse().unwrap())
        );
        let six =
            [own([0, 0, 0, 0]), own([0, 0, 0, 0]), own([0, 0, 0xff, 0xff]), own([10, 0, 0, 1])].concat();
        assert_eq!(address(&format!("{six}:0035")), Some("[::ffff:10.0.0.1]:53".parse().unwrap()));
        for text in ["", "1F90", "0100007F", "0100007F:xyz", "01:50", "zzzzzzzz:0050"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
