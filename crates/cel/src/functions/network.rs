//! Addresses and networks.

use std::net::IpAddr;

use super::{Answer, no_overload};
use crate::error::Error;
use crate::value::Value;

/// `ip`, `isIP`, `cidr` and `isCIDR`.
pub(super) fn parse<'a>(function: &str, text: &str) -> Answer<'a> {
    match function {
        "ip" => address(text).map(Value::Ip),
        "isIP" => Ok(Value::Bool(address(text).is_ok())),
        "cidr" => network(text).map(|(ip, length)| Value::Cidr(ip, length)),
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

fn network(text: &str) -> Result<(IpAddr, u8), Error> {
    let wrong =
        || Error::Failed(format!("network address parse error during conversion from string: {text:?}"));
    let (ip, length) = text.split_once('/').ok_or_else(wrong)?;
    let ip = address(ip).map_err(|_| wrong())?;
    let plain = !length.is_empty()
        && length.bytes().all(|b| b.is_ascii_digit())
        && (length == "0" || !length.starts_with('0'));
    let length = length.parse().ok().filter(|length| plain && *length <= width(ip)).ok_or_else(wrong)?;
    Ok((ip, length))
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.into(),
    }
}

/// The first address of the network.
fn masked(ip: IpAddr, length: u8) -> IpAddr {
    let host = u32::from(width(ip) - length.min(width(ip)));
    let keep = u128::MAX.checked_shl(host).unwrap_or(0);
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & keep as u32).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & keep).into()),
    }
}

pub(super) fn ip_method<'a>(name: &str, ip: IpAddr) -> Answer<'a> {
    let link_local_unicast = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.segments()[0] & 0xffc0 == 0xfe80,
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
            Value::Bool(!special && bits(ip) != u128::from(u32::MAX))
        }
        _ => return no_overload(),
    })
}

pub(super) fn cidr_method<'a>(name: &str, ip: IpAddr, length: u8, arguments: &[Value<'a>]) -> Answer<'a> {
    let holds =
        |other: IpAddr| other.is_ipv4() == ip.is_ipv4() && masked(other, length) == masked(ip, length);
    let holds_all = |other: IpAddr, of: u8| Value::Bool(of >= length && holds(other));
    Ok(match (name, arguments) {
        ("ip", []) => Value::Ip(ip),
        ("masked", []) => Value::Cidr(masked(ip, length), length),
        ("prefixLength", []) => Value::Int(i64::from(length)),
        ("containsIP", [Value::Ip(other)]) => Value::Bool(holds(*other)),
        ("containsIP", [Value::String(text)]) => Value::Bool(holds(address(text)?)),
        ("containsCIDR", [Value::Cidr(other, of)]) => holds_all(*other, *of),
        ("containsCIDR", [Value::String(text)]) => {
            let (other, of) = network(text)?;
            holds_all(other, of)
        }
        _ => return no_overload(),
    })
}
