//! Networks in texts.

use ipnet::IpNet;

/// The network in a text such as `10.0.0.0/8`. Addresses are read as strictly as everywhere else, without leading zeros, which
/// `IpNet`'s own parser would take.
pub fn network_of(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let length = length.parse().ok().filter(|_| !length.starts_with('+'))?;
    IpNet::new(address.parse().ok()?, length).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_strictly() {
        for good in ["10.0.0.0/8", "10.0.0.1/8", "::/0", "2001:db8::/128", "::ffff:1.2.3.4/120"] {
            assert!(network_of(good).is_some(), "{good}");
        }
        for bad in ["10.0.0.0", "10.0.0.0/33", "::/129", "x/8", "10.0.0.0/+8", "010.0.0.0/8", "10.0.0/8", "/"]
        {
            assert!(network_of(bad).is_none(), "{bad}");
        }
    }
}
