//! Shuffle sharding: each flow is dealt a hand of queues, so that two flows hardly ever have the same.

use std::hash::{DefaultHasher, Hash, Hasher};

/// The flow of requests that one schema means and that its distinguisher puts together.
pub(crate) fn flow(schema: &str, distinguisher: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    (schema, distinguisher).hash(&mut hasher);
    hasher.finish()
}

/// Deals `hand` different ones of `queues` queues, always the same to the same flow. As upstream's shuffle sharding
/// dealer: the flow's number is read as digits of falling base.
pub(crate) fn deal(mut flow: u64, queues: u32, hand: u32) -> Vec<u32> {
    let hand = hand.min(queues);
    let mut dealt: Vec<u32> = Vec::with_capacity(hand as usize);
    let mut sorted: Vec<u32> = Vec::with_capacity(hand as usize);
    for left in (queues - hand + 1..=queues).rev() {
        let mut card = u32::try_from(flow % u64::from(left)).unwrap_or_default();
        flow /= u64::from(left);
        // The card counts among those still in the deck.
        let mut at = 0;
        while sorted.get(at).is_some_and(|other| *other <= card) {
            card += 1;
            at += 1;
        }
        sorted.insert(at, card);
        dealt.push(card);
    }
    dealt
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hands_are_of_different_queues_and_differ_between_flows() {
        let hands: BTreeSet<Vec<u32>> =
            (0..1000).map(|n| deal(flow("schema", &format!("user-{n}")), 128, 6)).collect();
        assert!(hands.len() > 990, "{}", hands.len());
        let mut often = [0; 128];
        for hand in &hands {
            assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), 6);
            hand.iter().for_each(|queue| often[*queue as usize] += 1);
        }
        assert!(often.iter().all(|count| (15..90).contains(count)), "{often:?}");
        assert_eq!(deal(7, 1, 8), [0]);
        assert_eq!(deal(u64::MAX, 3, 3).len(), 3);
    }
}
