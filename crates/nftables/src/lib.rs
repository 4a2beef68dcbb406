//! nftables by netlink (`nfnetlink.h`, `nf_tables.h`): a fresh machine has no `nft`. Changes are data; [`transact`] makes them, all or none,
//! in the network namespace of the thread that calls it.

mod attributes;
mod messages;
mod rules;

pub use attributes::{attribute, big, expression, nested, number, text};
pub use messages::{Change, Family, News, rules_of, transact};
pub use rules::{
    Hook, accepted, append, chain, compare, create_set, create_table, dropped, elements, is_in, link_name,
    load_address, load_port, mask, protocol, remove_table, some_of,
};
