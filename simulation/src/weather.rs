//! How bad a world is. Each seed draws its own, so that some worlds are full of one thing and free of another.

use rand::Rng;
use rand::rngs::StdRng;

/// A fault that befalls a member, a link or a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The power goes at one of the next operations of a member's disk.
    PowerCut,
    /// The process ends; what it wrote stays.
    Kill,
    /// Links are cut.
    Split,
    /// Links are mended.
    Mend,
    /// A member stands still.
    Pause,
    /// A disk answers no sync for a while.
    Stall,
    /// A disk is full for a while.
    Full,
    /// The power goes, and a bit of what was durable is another one afterwards.
    Rot,
    /// A clock runs faster or slower from now on.
    Drift,
    /// A disk is lost with all that was on it.
    DiskLost,
    /// A new machine comes.
    Grow,
    /// A member is removed.
    Shrink,
    /// A learner is promoted, whether it is ready or not.
    Promote,
}

const FAULTS: [Fault; 13] = [
    Fault::PowerCut,
    Fault::Kill,
    Fault::Split,
    Fault::Mend,
    Fault::Pause,
    Fault::Stall,
    Fault::Full,
    Fault::Rot,
    Fault::Drift,
    Fault::DiskLost,
    Fault::Grow,
    Fault::Shrink,
    Fault::Promote,
];

/// How bad a world is.
#[derive(Debug, Clone)]
pub struct Weather {
    /// Messages lost, of a hundred.
    pub lost: u32,
    /// Messages that come twice, of a hundred.
    pub doubled: u32,
    /// Messages that are late, of a hundred.
    pub late: u32,
    /// How long a message takes at most when it is not late, in microseconds.
    pub delay: u64,
    /// How long a sync takes at most, in microseconds.
    pub sync: u64,
    /// Microseconds between two faults, on average.
    pub fault_every: u64,
    /// How often each fault is drawn.
    pub weights: Vec<(Fault, u32)>,
    /// How long a member that wins an election does nothing else at most, in microseconds.
    pub victory: u64,
    /// How long the storm lasts, in microseconds.
    pub storm: u64,
}

impl Weather {
    /// A world without faults.
    pub fn fine() -> Self {
        Weather {
            lost: 0,
            doubled: 0,
            late: 0,
            delay: 2_000,
            sync: 2_000,
            fault_every: u64::MAX / 4,
            weights: vec![(Fault::Mend, 1)],
            victory: 0,
            storm: 0,
        }
    }

    /// Some storm.
    pub fn draw(rng: &mut StdRng) -> Self {
        let mut of = |most: u32| if rng.random_ratio(1, 3) { 0 } else { rng.random_range(0..=most) };
        let (lost, doubled, late) = (of(8), of(6), of(10));
        let mut weights: Vec<(Fault, u32)> = FAULTS.iter().map(|fault| (*fault, of(10))).collect();
        // Without it most of the time would be spent with nothing to say to each other; and bits rot seldom.
        for (fault, weight) in &mut weights {
            match fault {
                Fault::Mend => *weight += 6,
                Fault::Rot => *weight = weight.div_ceil(8),
                Fault::DiskLost | Fault::Shrink => *weight = weight.div_ceil(2),
                Fault::Grow | Fault::Promote => *weight = weight.div_ceil(3),
                _ => {}
            }
        }
        Weather {
            lost,
            doubled,
            late,
            delay: rng.random_range(200..15_000),
            sync: rng.random_range(200..30_000),
            fault_every: rng.random_range(60_000..700_000),
            weights,
            victory: if rng.random_ratio(2, 3) { 0 } else { rng.random_range(1_000..900_000) },
            storm: rng.random_range(4_000_000..9_000_000),
        }
    }

    /// The next fault.
    pub fn fault(&self, rng: &mut StdRng) -> Fault {
        let total: u32 = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut place = rng.random_range(0..total.max(1));
        for (fault, weight) in &self.weights {
            if place < *weight {
                return *fault;
            }
            place -= weight;
        }
        Fault::Mend
    }
}
