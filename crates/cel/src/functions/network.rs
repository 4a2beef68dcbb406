//! Addresses and networks.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::value::Value;

/// `ip`, `isIP`, `cidr` and `isCIDR`.
pub(super) fn parse<'a>(function: &str, text: &str) -> Answer<'a> {
    match function {
        "ip" => address(text).map(Value::Ip),
        "isIP" => Ok(Value::Bool(address(text).is_ok())),
        "cidr" => network(text).map(Value::Cidr),
        _ => Ok(Value::Bool(network(text).is_ok())),
    }
}

/// `ip.isCanonical`.
pub(super) fn is_canonical<'a>(text: &str) -> Answer<'a> {
    Ok(Value::Bool(address(text)?.to_string() == text))
}

fn address(text: &str) -> Result<IpAddr, Error> {
    let wrong = |why: &str| {
        Error::Failed(format!("IP Address {text:?} parse error during conversion from string: {why}"))
    };
    let ip: IpAddr = text.parse().map_err(|_| wrong("unable to parse IP"))?;
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Err(wrong("IPv4-mapped IPv6 address is not allowed"))
        }
        ip => Ok(ip),
    }
}

/// As Go's `netip.ParsePrefix`, which is stricter than `IpNet`'s own parser: no number has a leading zero.
fn network(text: &str) -> Result<IpNet, Error> {
    let wrong =
        || Error::Failed(format!("network address parse error during conversion from string: {text:?}"));
    let (ip, length) = text.split_once('/').ok_or_else(wrong)?;
    let ip = address(ip).map_err(|_| wrong())?;
    let plain = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length = length.parse().ok().filter(|_| plain).ok_or_else(wrong)?;
    IpNet::new(ip, length).map_err(|_| wrong())
}

pub(super) fn ip_method<'a>(name: &str, ip: IpAddr) -> Answer<'a> {
    let link_local_unicast = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    Ok(match name {
        "family" => Value::Int(if ip.is_ipv4() { 4 } else { 6 }),
        "isUnspecified" => Value::Bool(ip.is_unspecified()),
        "isLoopback" => Value::Bool(ip.is_loopback()),
        "isLinkLocalUnicast" => Value::Bool(link_local_unicast),
        "isLinkLocalMulticast" => Value::Bool(match ip {
            IpAddr::V4(ip) => ip.octets()[..3] == [224, 0, 0],
            IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
        }),
        "isGlobalUnicast" => {
            let special = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || link_local_unicast;
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            Value::Bool(!special && !broadcast)
        }
        _ => return no_overload(),
    })
}

pub(super) fn cidr_method<'a>(name: &str, of: IpNet, arguments: &[Value<'a>]) -> Answer<'a> {
    Ok(match (name, arguments) {
        ("ip", []) => Value::Ip(of.addr()),
        ("masked", []) => Value::Cidr(of.trunc()),
        ("prefixLength", []) => Value::Int(i64::from(of.prefix_len())),
        ("containsIP", [Value::Ip(other)]) => Value::Bool(of.contains(other)),
        ("containsIP", [Value::String(text)]) => Value::Bool(of.contains(&address(text)?)),
        ("containsCIDR", [Value::Cidr(other)]) => Value::Bool(of.contains(other)),
        ("containsCIDR", [Value::String(text)]) => Value::Bool(of.contains(&network(text)?)),
        _ => return no_overload(),
    })
}
