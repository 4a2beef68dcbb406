//! How good a host is once a pod is on it: how much room it has left, and whether it has the pod's images. As upstream, each of the three
//! has the weight 1.

use crate::host_row::HostRow;
use crate::request::amount;
use crate::rule::{Asks, BEST, Host, Rule};
use crate::wish::Wish;

const WHOLE: i128 = BEST as i128;

/// What is left of processors and memory, on average (the strategy `LeastAllocated` of `NodeResourcesFit`).
pub(crate) fn left(wish: &Wish, row: &HostRow) -> i64 {
    let mut left = 0;
    for (at, name) in ["cpu", "memory"].into_iter().enumerate() {
        let weight = row.weight[at].saturating_add(wish.weight[at]);
        left += WHOLE - share(weight, amount(&row.allocatable, name));
    }
    narrow(left / 2)
}

/// How much alike the used shares of processors and memory are.
#[derive(Debug)]
pub(crate) struct NodeResourcesBalancedAllocation;

impl Rule for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, asks: &Asks<'_>, host: &Host<'_>) -> i64 {
        let [cpu, memory] = ["cpu", "memory"].map(|name| {
            let asked = host.requested(name).saturating_add(asks.requests(name));
            share(asked, host.allocatable(name))
        });
        // The standard deviation of two numbers is half of their distance.
        narrow(WHOLE - (cpu - memory).abs() / 2)
    }
}

/// How much of the pod's images is there.
#[derive(Debug)]
pub(crate) struct ImageLocality;

impl Rule for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn score(&self, asks: &Asks<'_>, host: &Host<'_>) -> i64 {
        narrow(host.node().status.images.locality(&asks.0.images).into())
    }
}

fn share(used: i128, all: i128) -> i128 {
    if all <= 0 { WHOLE } else { (used.saturating_mul(WHOLE) / all).clamp(0, WHOLE) }
}

/// What is between nothing and a whole, as a score.
fn narrow(thousandths: i128) -> i64 {
    i64::try_from(thousandths).unwrap_or(BEST)
}
