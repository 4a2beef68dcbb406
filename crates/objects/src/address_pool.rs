//! The addresses that Services of type LoadBalancer may have, and what a host says of those that it takes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The annotation by which a Node says which addresses its host takes: an [`AddressPool`]. Nothing in it is none: so says a host without a
/// pool, and one that is about to leave. A Node without the annotation is that of a program that doesn't say it, and takes what it is offered.
pub const TAKES_ADDRESSES: &str = "holdfast.dev/load-balancer-addresses";

/// The addresses that Services of type LoadBalancer may have, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddressPool(Vec<(Ipv4Addr, Ipv4Addr)>);

impl AddressPool {
    /// That of these ranges, each with its first and its last address.
    pub fn new(ranges: impl IntoIterator<Item = (Ipv4Addr, Ipv4Addr)>) -> Self {
        AddressPool(ranges.into_iter().collect())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let size = |(first, last): &(Ipv4Addr, Ipv4Addr)| u64::from(u32::from(*last) - u32::from(*first)) + 1;
        usize::try_from(self.0.iter().map(size).sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        self.0.iter().any(|(first, last)| (first..=last).contains(&&address))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Ipv4Addr> + '_ {
        self.0.iter().flat_map(|(first, last)| u32::from(*first)..=u32::from(*last)).map(Ipv4Addr::from)
    }

    /// Whether a host takes an address, by its Node's annotations ([`TAKES_ADDRESSES`]).
    pub fn is_taken_by(address: Ipv4Addr, annotations: Option<&BTreeMap<String, String>>) -> bool {
        let said = annotations.and_then(|all| all.get(TAKES_ADDRESSES));
        said.is_none_or(|said| said.parse().is_ok_and(|pool: AddressPool| pool.contains(address)))
    }
}

/// `FIRST-LAST,FIRST-LAST`.
impl fmt::Display for AddressPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            write!(f, "{}{first}-{last}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// What isn't written like a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no list of FIRST-LAST")]
pub struct NoPool(String);

impl FromStr for AddressPool {
    type Err = NoPool;

    fn from_str(text: &str) -> Result<Self, NoPool> {
        let range = |range: &str| {
            let (first, last) = range.split_once('-')?;
            let range: (Ipv4Addr, Ipv4Addr) = (first.parse().ok()?, last.parse().ok()?);
            (range.0 <= range.1).then_some(range)
        };
        let ranges: Option<Vec<_>> = text.split(',').filter(|range| !range.is_empty()).map(range).collect();
        ranges.map(AddressPool).ok_or_else(|| NoPool(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_its_ranges() {
        let at = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let pool = AddressPool::new([(at(8), at(9)), (at(3), at(3))]);
        assert_eq!(pool.iter().collect::<Vec<_>>(), [at(8), at(9), at(3)]);
        assert_eq!(pool.len(), 3);
        assert!(pool.contains(at(9)) && pool.contains(at(3)) && !pool.contains(at(4)) && !pool.is_empty());
        assert!(AddressPool::default().is_empty());
    }

    #[test]
    fn a_host_takes_what_its_node_says() {
        let at = |last: u8| Ipv4Addr::new(10, 0, 0, last);
        let pool = AddressPool::new([(at(8), at(9)), (at(3), at(3))]);
        assert_eq!(pool.to_string(), "10.0.0.8-10.0.0.9,10.0.0.3-10.0.0.3");
        assert_eq!(pool.to_string().parse(), Ok(pool.clone()));
        assert_eq!("".parse(), Ok(AddressPool::default()));
        for wrong in ["10.0.0.8", "10.0.0.9-10.0.0.8", "x-y", "-"] {
            assert!(wrong.parse::<AddressPool>().is_err(), "{wrong}");
        }
        let takes = |said: &str| {
            let annotations = BTreeMap::from([(TAKES_ADDRESSES.to_owned(), said.to_owned())]);
            AddressPool::is_taken_by(at(9), Some(&annotations))
        };
        assert!(takes(&pool.to_string()) && !takes("10.0.0.1-10.0.0.2") && !takes("") && !takes("all"));
        assert!(
            AddressPool::is_taken_by(at(9), None) && AddressPool::is_taken_by(at(9), Some(&BTreeMap::new()))
        );
    }
}
