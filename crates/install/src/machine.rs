//! Who this machine is: its name, its address and the link that has it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use ipnet::{IpNet, Ipv4Net};

/// Why a machine can't be told who it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The name can't be a host's.
    #[error(
        "{0:?} can't be a host's name; give one with --name: 1 to 63 small letters, digits, '-' and '.', neither localhost nor kubernetes, another for each host"
    )]
    Name(String),
    /// The address is on no link of the machine.
    #[error("no link of this machine has the address {address}; its addresses are {}", told(.there))]
    NotHere {
        /// The address.
        address: IpAddr,
        /// Those that there are.
        there: Vec<IpAddr>,
    },
    /// Others don't reach it.
    #[error("other machines don't reach {0}; give the address by which they reach this one with --address")]
    OnlyHere(IpAddr),
    /// Hosts speak IPv4 so far.
    #[error("{0} is an IPv6 address, and hosts have IPv4 addresses so far; give one with --address")]
    NotYet(IpAddr),
    /// None speaks for itself.
    #[error("it isn't clear which address is this host's; give one of {} with --address", told(.0))]
    Unclear(Vec<IpAddr>),
    /// There is none.
    #[error("this machine has no IPv4 address but loopback's; give its link one first")]
    NoAddress,
}

fn told(addresses: &[IpAddr]) -> String {
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

/// A link's address, with the network that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// The link's name, such as `eth0`.
    pub name: String,
    /// The address and the length of its network's prefix.
    pub network: IpNet,
}

/// What a machine says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Machine {
    /// Its name.
    pub hostname: String,
    /// The addresses of its links that are up.
    pub links: Vec<Link>,
    /// The address by which it speaks to the others, if it has a way to them.
    pub towards_others: Option<IpAddr>,
}

/// Who a host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The host's name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// The link that has it.
    pub link: String,
    /// The network that it is in.
    pub network: IpNet,
}

impl Machine {
    /// Looks at this machine. `others` is where the others are; none to take what leads out of here.
    ///
    /// # Errors
    /// If the system doesn't tell.
    pub fn look(others: Option<SocketAddr>) -> io::Result<Self> {
        let hostname = nix::unistd::gethostname().map_err(io::Error::from)?;
        let mut links = Vec::new();
        for found in nix::ifaddrs::getifaddrs().map_err(io::Error::from)? {
            let is_up = found.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
            let address = found.address.as_ref().and_then(|address| address.as_sockaddr_in());
            let mask = found.netmask.as_ref().and_then(|mask| mask.as_sockaddr_in());
            let (Some(address), Some(mask), true) = (address, mask, is_up) else { continue };
            let Ok(network) = Ipv4Net::with_netmask(address.ip(), mask.ip()) else { continue };
            links.push(Link { name: found.interface_name, network: network.into() });
        }
        // TEST-NET-1 (RFC 5737): nobody's address. A socket for datagrams that is connected sends nothing, and tells the way.
        let anywhere = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 9));
        let towards_others = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
            .and_then(|socket| socket.connect(others.unwrap_or(anywhere)).and_then(|()| socket.local_addr()))
            .map(|local| local.ip())
            .ok();
        Ok(Machine { hostname: hostname.to_string_lossy().into_owned(), links, towards_others })
    }

    /// Who the host here is: as it was said, and as it can be found out.
    ///
    /// # Errors
    /// [`Error`].
    pub fn place(&self, name: Option<&str>, address: Option<IpAddr>) -> Result<Place, Error> {
        let name = match name {
            Some(name) => name.to_owned(),
            // As upstream's kubelet has it.
            None => self.hostname.trim().to_ascii_lowercase(),
        };
        // A machine that was never given a name has the one that all such machines have.
        if !config::is_new_host_name(&name) {
            return Err(Error::Name(name));
        }
        let outward =
            || self.links.iter().filter(|link| !link.network.addr().is_loopback()).collect::<Vec<_>>();
        let address = match (address, self.towards_others) {
            (Some(address), _) => address,
            (None, Some(address)) if !address.is_loopback() => address,
            (None, _) => match outward().as_slice() {
                [] => return Err(Error::NoAddress),
                [one] => one.network.addr(),
                many => return Err(Error::Unclear(many.iter().map(|link| link.network.addr()).collect())),
            },
        };
        if address.is_ipv6() {
            return Err(Error::NotYet(address));
        }
        if address.is_loopback() || address.is_unspecified() {
            return Err(Error::OnlyHere(address));
        }
        let link = self.links.iter().find(|link| link.network.addr() == address);
        let there = || outward().iter().map(|link| link.network.addr()).collect();
        let link = link.ok_or_else(|| Error::NotHere { address, there: there() })?;
        Ok(Place { name, address, link: link.name.clone(), network: link.network.trunc() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(links: &[(&str, &str)], towards: Option<&str>) -> Machine {
        let link = |(name, network): &(&str, &str)| Link {
            name: (*name).to_owned(),
            network: network.parse().unwrap(),
        };
        Machine {
            hostname: "Node-1".into(),
            links: links.iter().map(link).collect(),
            towards_others: towards.map(|address| address.parse().unwrap()),
        }
    }

    const TWO: [(&str, &str); 3] =
        [("lo", "127.0.0.1/8"), ("eth0", "10.73.0.1/24"), ("eth1", "192.168.1.5/16")];

    #[test]
    fn what_isn_t_said_is_found_out() {
        let place = machine(&TWO, Some("192.168.1.5")).place(None, None).unwrap();
        let network = "192.168.0.0/16".parse().unwrap();
        let address = "192.168.1.5".parse().unwrap();
        assert_eq!(place, Place { name: "node-1".into(), address, link: "eth1".into(), network });
        let place = machine(&TWO, Some("192.168.1.5")).place(Some("n7"), "10.73.0.1".parse().ok()).unwrap();
        assert_eq!((place.name.as_str(), place.link.as_str()), ("n7", "eth0"));
        // The only one there is, without a way out.
        assert_eq!(machine(&TWO[..2], None).place(None, None).unwrap().link, "eth0");
    }

    #[test]
    fn what_isn_t_clear_or_can_t_be_is_refused() {
        let place = |machine: &Machine, name: Option<&str>, address: Option<&str>| {
            let address = address.map(|address| address.parse().unwrap());
            machine.place(name, address).unwrap_err().to_string()
        };
        let two = machine(&TWO, None);
        assert!(place(&two, None, None).contains("10.73.0.1, 192.168.1.5"));
        assert!(place(&machine(&TWO[..1], None), None, None).contains("no IPv4 address"));
        assert!(place(&two, None, Some("10.73.0.9")).contains("no link of this machine has"));
        assert!(place(&two, None, Some("127.0.0.1")).contains("other machines don't reach"));
        assert!(place(&two, None, Some("fd00::1")).contains("IPv6"));
        assert!(place(&two, Some("N_1"), Some("10.73.0.1")).contains("--name"));
        let nameless = Machine { hostname: "localhost".into(), ..two };
        assert!(place(&nameless, None, Some("10.73.0.1")).contains("\"localhost\""));
        for taken in ["kubernetes", "kubernetes.default.svc", "localhost.localdomain"] {
            assert!(place(&nameless, Some(taken), Some("10.73.0.1")).contains(taken));
        }
        for free in ["kubernetes.example.com", "kubernetes-1", "localhost1"] {
            assert!(place(&nameless, Some(free), Some("10.73.0.9")).contains("no link of this machine has"));
        }
    }

    #[test]
    fn this_machine_tells_who_it_is() {
        let here = Machine::look(None).unwrap();
        assert!(!here.hostname.is_empty());
        assert!(here.links.iter().all(|link| link.network.prefix_len() <= 32 && !link.name.is_empty()));
    }
}
