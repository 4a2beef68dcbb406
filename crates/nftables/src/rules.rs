//! Tables, chains and rules as changes. Attributes are numbers of `nf_tables.h`, each in the order of what it is of: 1 the table's name, 3
//! the chain's, and so on.

use crate::attributes::{attribute, big, expression, nested, number, text};
use crate::messages::Change;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;
/// How many elements one message has: its length is a number of 16 bits.
const ELEMENTS: usize = 500;

/// Where in a packet's way a chain is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// The place: such as [`number::PRE_ROUTING`].
    pub place: u32,
    /// Before or after others there: the lower the earlier.
    pub priority: i32,
}

/// A table, if there isn't one of its name.
pub fn create_table(table: &str) -> Change {
    (number::NEW_TABLE, CREATE, text(1, table))
}

/// A table goes, with all in it. It must be there.
pub fn remove_table(table: &str) -> Change {
    (number::DELETE_TABLE, 0, text(1, table))
}

/// A chain of a `kind` (`filter`, `nat`) that lets through what no rule of it wants otherwise.
pub fn chain(table: &str, chain: &str, kind: &str, hook: Hook) -> Change {
    let hook = nested(4, &[big(1, hook.place), attribute(2, &hook.priority.to_be_bytes())]);
    (number::NEW_CHAIN, CREATE, [text(1, table), text(3, chain), hook, text(7, kind)].concat())
}

/// A rule of these parts at the end of a chain.
pub fn append(table: &str, chain: &str, parts: &[Vec<u8>]) -> Change {
    let said = [text(1, table), text(2, chain), nested(4, parts)].concat();
    (number::NEW_RULE, CREATE | APPEND, said)
}

/// A set of keys of this many bytes, of the type that `nft` shows them as. Beside its name it has a number, by which rules of the same
/// transaction know it.
pub fn create_set(table: &str, (name, id): (&str, u32), of: u32, length: usize) -> Change {
    let length = big(5, u32::try_from(length).unwrap_or(u32::MAX));
    let said = [text(1, table), text(2, name), big(3, 0), big(4, of), length, big(10, id)];
    (number::NEW_SET, CREATE, said.concat())
}

/// Keys that come into a set ([`number::NEW_ELEMENTS`]) or go ([`number::DELETE_ELEMENTS`]).
pub fn elements(what: u16, table: &str, set: &str, keys: &[Vec<u8>]) -> Vec<Change> {
    let flags = if what == number::NEW_ELEMENTS { CREATE } else { 0 };
    let some = |keys: &[Vec<u8>]| {
        let keys: Vec<_> = keys.iter().map(|key| nested(1, &[nested(1, &[attribute(1, key)])])).collect();
        (what, flags, [text(1, table), text(2, set), nested(3, &keys)].concat())
    };
    keys.chunks(ELEMENTS).map(some).collect()
}

/// The part that goes on if what was taken is in a set of the same transaction, or isn't.
pub fn is_in((name, id): (&str, u32), has_to_be: bool) -> Vec<u8> {
    let inverted = big(5, u32::from(!has_to_be));
    expression("lookup", &[text(1, name), big(2, number::REGISTER), big(4, id), inverted])
}

/// The part of a rule that drops the packet.
pub fn dropped() -> Vec<u8> {
    verdict(number::DROP)
}

/// The part of a rule that lets the packet through, past all rules of the chain that follow.
pub fn accepted() -> Vec<u8> {
    verdict(number::ACCEPT)
}

fn verdict(code: u32) -> Vec<u8> {
    let verdict = nested(2, &[nested(2, &[big(1, code)])]);
    expression("immediate", &[big(1, number::VERDICT), verdict])
}

/// The part that takes an address of IPv4 from the packet's head, which begins there.
pub fn load_address(register: u32, offset: u32) -> Vec<u8> {
    expression("payload", &[big(1, register), big(2, number::NETWORK_HEADER), big(3, offset), big(4, 4)])
}

/// The part that leaves of an address that was taken only its network's.
pub fn mask(mask: [u8; 4]) -> Vec<u8> {
    let value = |kind: u16, bytes: [u8; 4]| nested(kind, &[attribute(1, &bytes)]);
    let register = |kind: u16| big(kind, number::REGISTER);
    expression("bitwise", &[register(1), register(2), big(3, 4), value(4, mask), value(5, [0; 4])])
}

/// The part that takes which protocol the packet is of, as one byte.
pub fn protocol() -> Vec<u8> {
    expression("meta", &[big(1, number::REGISTER), big(2, number::PROTOCOL)])
}

/// The part that takes the sender's port of a packet of TCP or UDP, or the receiver's. Nothing goes on that has none.
pub fn load_port(is_senders: bool) -> Vec<u8> {
    let offset = if is_senders { 0 } else { 2 };
    let place = [big(1, number::REGISTER), big(2, number::TRANSPORT_HEADER), big(3, offset), big(4, 2)];
    expression("payload", &place)
}

/// The part that takes the name of a link: which one, is [`number::NAME_OF_LINK`] or [`number::NAME_OF_LINK_OUT`].
pub fn link_name(which: u32) -> Vec<u8> {
    expression("meta", &[big(1, number::REGISTER), big(2, which)])
}

/// The part that goes on if what was taken compares so with these bytes: such as [`number::EQUAL`].
pub fn compare(comparison: u32, bytes: &[u8]) -> Vec<u8> {
    let value = nested(3, &[attribute(1, bytes)]);
    expression("cmp", &[big(1, number::REGISTER), big(2, comparison), value])
}

/// The parts that go on with so many of a hundred packets, chosen at random.
pub fn some_of(percent: u8) -> [Vec<u8>; 3] {
    const RANDOM: u32 = 1;
    const TO_NETWORK_ORDER: u32 = 1;
    const FOUR_BYTES: u32 = 4;
    let register = |kind: u16| big(kind, number::REGISTER);
    [
        expression("numgen", &[register(1), big(2, 100), big(3, RANDOM), big(4, 0)]),
        // Comparisons are of bytes, the first one first.
        expression(
            "byteorder",
            &[register(1), register(2), big(3, TO_NETWORK_ORDER), big(4, FOUR_BYTES), big(5, FOUR_BYTES)],
        ),
        compare(number::LESS, &u32::from(percent).to_be_bytes()),
    ]
}
