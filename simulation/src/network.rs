//! Which members hear which.

use std::collections::BTreeSet;

use rand::Rng;
use rand::rngs::StdRng;

/// The links between machines.
#[derive(Debug, Default)]
pub struct Network {
    /// Who (first) is not heard by whom (second).
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// Whether a message gets through.
    pub fn carries(&self, from: usize, to: usize) -> bool {
        !self.cut.contains(&(from, to))
    }

    /// All links work again.
    pub fn heal(&mut self) {
        self.cut.clear();
    }

    /// Cuts links in one of the ways that links are cut. Says which.
    pub fn split(&mut self, machines: usize, rng: &mut StdRng) -> &'static str {
        self.cut.clear();
        let one = rng.random_range(0..machines);
        let all = || (0..machines).flat_map(|from| (0..machines).map(move |to| (from, to)));
        match rng.random_range(0..5) {
            0 => {
                self.cut.extend(all().filter(|(from, _)| *from == one));
                "links cut one way: a member is not heard"
            }
            1 => {
                self.cut.extend(all().filter(|(_, to)| *to == one));
                "links cut one way: a member hears nobody"
            }
            2 => {
                let other = rng.random_range(0..machines);
                self.cut.insert((one, other));
                "links cut one way: a member does not hear another"
            }
            3 => {
                self.cut.extend(all());
                "links cut: all"
            }
            _ => {
                let side: BTreeSet<usize> = (0..machines).filter(|_| rng.random()).collect();
                self.cut.extend(all().filter(|(from, to)| side.contains(from) != side.contains(to)));
                "links cut: the members are split"
            }
        }
    }
}
