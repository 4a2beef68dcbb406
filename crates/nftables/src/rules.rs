//! Tables, chains and rules as changes. Attributes are numbers of `nf_tables.h`, each in the order of what it is of: 1 the table's name, 3
//! the chain's, and so on.

use crate::attributes::{attribute, big, expression, nested, number, text};
use crate::messages::Change;

const CREATE: u16 = libc::NLM_F_CREATE as u16;
const APPEND: u16 = libc::NLM_F_APPEND as u16;

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

/// The part of a rule that drops the packet.
pub fn dropped() -> Vec<u8> {
    let verdict = nested(2, &[nested(2, &[big(1, number::DROP)])]);
    expression("immediate", &[big(1, number::VERDICT), verdict])
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
