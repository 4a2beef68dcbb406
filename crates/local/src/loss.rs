//! Packets that are lost between a host and the other hosts: rules of nftables at the bridge, which stands for the switch. What passes between
//! a host and the switch itself, where users ask from, is not lost.

use nftables::{
    Change, Family, Hook, append, chain, compare, create_table, dropped, link_name, number, remove_table,
    some_of, transact,
};

/// How long a link's name is for the kernel.
const NAME: usize = 16;
const CHAIN: &str = "between";

/// Which packets of a host are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// Those that it sends.
    From,
    /// Those that are sent to it.
    To,
    /// All.
    Both,
}

/// From now on so many of a hundred packets are lost that the bridge would pass on by this port. What was lost there before isn't any more.
pub fn lose(port: &str, lost: Lost, percent: u8) -> std::io::Result<()> {
    transact(Family::Bridge, &rules(port, lost, percent))
}

/// No packets are lost at this port any more.
pub fn lose_nothing(port: &str) -> std::io::Result<()> {
    transact(Family::Bridge, &[create_table(port), remove_table(port)])
}

/// A table of the port's own.
fn rules(port: &str, lost: Lost, percent: u8) -> Vec<Change> {
    let passed_on = Hook { place: number::FORWARD, priority: 0 };
    let mut changes = vec![
        // That it is there is no condition of its removal then.
        create_table(port),
        remove_table(port),
        create_table(port),
        chain(port, CHAIN, "filter", passed_on),
    ];
    let ways: &[u32] = match lost {
        Lost::From => &[number::NAME_OF_LINK],
        Lost::To => &[number::NAME_OF_LINK_OUT],
        Lost::Both => &[number::NAME_OF_LINK, number::NAME_OF_LINK_OUT],
    };
    let mut name = port.as_bytes().to_vec();
    name.resize(NAME, 0);
    for way in ways {
        let mut parts = vec![link_name(*way), compare(number::EQUAL, &name)];
        if percent < 100 {
            parts.extend(some_of(percent));
        }
        parts.push(dropped());
        changes.push(append(port, CHAIN, &parts));
    }
    changes
}
