//! How much an expression may do.

use crate::error::Error;

/// The most that one expression may cost: `PerCallLimit` of apiserver's `pkg/apis/cel/config.go`, about 0.1 s there.
pub const MOST_OF_ONE: u64 = 1_000_000;
/// The most that all expressions of one request or object may cost: `RuntimeCELCostBudget` of the same file, about a second
/// there.
pub const MOST_OF_ALL: u64 = 10_000_000;

/// What may still be spent. Each step of an evaluation costs one, and what takes or makes texts and lists costs
/// as they are long: so time and memory are bounded alike.
#[derive(Debug)]
pub struct Budget {
    left: u64,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { left: MOST_OF_ALL }
    }
}

impl Budget {
    /// One of `left`.
    pub fn new(left: u64) -> Self {
        Budget { left }
    }

    /// What is left.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Spends; the answer is an error once there is nothing left.
    ///
    /// # Errors
    /// [`Error::TooExpensive`].
    pub fn charge(&mut self, cost: u64) -> Result<(), Error> {
        match self.left.checked_sub(cost) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                self.left = 0;
                Err(Error::TooExpensive)
            }
        }
    }

    /// Spends what it costs to look at, or make, this many bytes: a tenth of a step each, as upstream's estimate has it, and
    /// one step for doing it at all.
    pub(crate) fn charge_bytes(&mut self, bytes: usize) -> Result<(), Error> {
        self.charge(bytes as u64 / 10 + 1)
    }
}
