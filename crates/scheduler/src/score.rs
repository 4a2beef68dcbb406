//! How much room a host has left once a pod is on it, and whether it has its images.

use crate::host_row::HostRow;
use crate::request::amount;
use crate::wish::Wish;

/// A whole: scores are in thousandths, finer than upstream's hundredths, so that hosts are seldom equal.
const WHOLE: i128 = 1000;

/// The more the better: the sum of three of upstream's scores, all of weight 1 there. `NodeResourcesFit` with the strategy
/// `LeastAllocated` (what is left of processors and memory, on average), `NodeResourcesBalancedAllocation` (how much alike
/// their used shares are), and `ImageLocality`.
pub(crate) fn room(wish: &Wish, host: &HostRow) -> i128 {
    let mut left = 0;
    let mut shares = [0, 0];
    for (at, name) in ["cpu", "memory"].into_iter().enumerate() {
        let all = amount(&host.allocatable, name);
        let weight = host.weight[at].saturating_add(wish.weight[at]);
        left += WHOLE - share(weight, all);
        let asked = amount(&host.requested, name).saturating_add(amount(&wish.amounts, name));
        shares[at] = share(asked, all);
    }
    // The standard deviation of two numbers is half of their distance.
    let balance = WHOLE - (shares[0] - shares[1]).abs() / 2;
    let images = host.node.as_ref().map_or(0, |node| node.status.images.locality(&wish.images));
    left / 2 + balance + i128::from(images)
}

fn share(used: i128, all: i128) -> i128 {
    if all <= 0 { WHOLE } else { (used.saturating_mul(WHOLE) / all).clamp(0, WHOLE) }
}
