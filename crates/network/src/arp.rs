//! Gratuitous ARP: telling a link's neighbours at once who has an address now (RFC 5227, section 3; RFC 826).

use std::io;
use std::net::Ipv4Addr;

use socket2::{Domain, SockAddr, Socket, Type};

const BROADCAST: [u8; 6] = [0xff; 6];
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Hardware type Ethernet, protocol type IPv4, and the lengths of their addresses.
const ETHERNET_IPV4: [u8; 6] = [0, 1, 0x08, 0, 6, 4];

/// The two forms of the announcement: neighbours differ in which one they heed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Request = 1,
    Reply = 2,
}

/// The Ethernet frame that says "`address` is at `hardware`" to everybody.
pub(crate) fn announcement(form: Form, hardware: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    let target = match form {
        Form::Request => [0; 6],
        Form::Reply => hardware,
    };
    let address = address.octets();
    let parts: [&[u8]; 9] = [
        &BROADCAST,
        &hardware,
        &ETHERTYPE_ARP,
        &ETHERNET_IPV4,
        &[0, form as u8],
        &hardware,
        &address,
        &target,
        &address,
    ];
    parts.concat()
}

/// Sends both forms over a link.
pub(crate) fn announce(link: u32, hardware: [u8; 6], address: Ipv4Addr) -> io::Result<()> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
    let to = link_address(link)?;
    for form in [Form::Request, Form::Reply] {
        socket.send_to(&announcement(form, hardware, address), &to)?;
    }
    Ok(())
}

/// The address of everybody on a link (packet(7)).
fn link_address(link: u32) -> io::Result<SockAddr> {
    let index = i32::try_from(link).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut all = [0; 8];
    all[..6].copy_from_slice(&BROADCAST);
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ARP as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 6,
        sll_addr: all,
    };
    // SAFETY: the storage is zeroed, aligned for every kind of address and larger than a `sockaddr_ll`, which
    // is written whole; the length is set to its size.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            storage.cast::<libc::sockaddr_ll>().write(address);
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_rfc() {
        let hardware = [2, 0x48, 0x46, 0, 0, 1];
        let request = announcement(Form::Request, hardware, Ipv4Addr::new(10, 73, 0, 100));
        let hex: String = request.iter().map(|byte| format!("{byte:02x}")).collect();
        let ethernet = "ffffffffffff0248460000010806";
        assert_eq!(hex, format!("{ethernet}00010800060400010248460000010a4900640000000000000a490064"));
        let reply = announcement(Form::Reply, hardware, Ipv4Addr::new(10, 73, 0, 100));
        let hex: String = reply.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("{ethernet}00010800060400020248460000010a4900640248460000010a490064"));
    }
}
