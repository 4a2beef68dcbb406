//! Runs a target over many inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::corpus::Corpus;
use crate::cost::{self, Cost};
use crate::law;
use crate::targets::Target;

/// An input may take so long; a build without optimisation on a busy machine is slow.
pub(crate) const SLOW: Duration = Duration::from_secs(60);

/// An input that a target panicked at, or that cost too much.
#[derive(Debug)]
pub struct Failure {
    /// The target's name.
    pub target: &'static str,
    /// The seed that the input was made with.
    pub seed: u64,
    /// The input.
    pub input: Vec<u8>,
    /// What went wrong.
    pub what: String,
}

/// What a run did.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many inputs were read.
    pub inputs: u64,
    /// The longest time that one took.
    pub longest: Duration,
    /// The most bytes that were allocated for a byte of an input, of those that are long enough to tell.
    pub heaviest: u64,
}

/// Inputs shorter than this say little of what a byte costs.
const TELLING: usize = 4 << 10;

impl Tally {
    pub(crate) fn add(&mut self, length: usize, took: Duration, cost: Cost) {
        self.inputs += 1;
        self.longest = self.longest.max(took);
        if length >= TELLING {
            self.heaviest = self.heaviest.max(cost.bytes / length as u64);
        }
    }
}

/// Reads inputs with seeds from `first` on while `goes_on` says so, those first that failed before.
///
/// # Errors
/// The first input that fails.
pub fn run(
    target: &Target,
    corpus: &Corpus,
    first: u64,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Tally, Box<Failure>> {
    let mut tally = Tally::default();
    for (_, input) in corpus.kept.iter().filter(|(name, _)| name == target.name) {
        read(target, 0, input, &mut tally)?;
    }
    let mut seed = first;
    while goes_on(seed - first) {
        let input = (target.make)(&mut StdRng::seed_from_u64(seed), corpus);
        read(target, seed, &input, &mut tally)?;
        seed += 1;
    }
    Ok(tally)
}

/// How long an input becomes that grows: long enough for what is quadratic to show, short enough to read many.
const LONGEST: usize = 48 << 10;
/// No input has as many pieces.
const MOST_TIMES: usize = 1 << 16;
/// How often a time is taken that looks like a fault: whatever else the machine does only ever adds to it.
const AGAIN: usize = 3;

/// Reads inputs that grow, each at three lengths, with seeds from `first` on while `goes_on` says so.
///
/// # Errors
/// The first input that fails, at its longest.
pub fn run_growing(
    target: &Target,
    corpus: &Corpus,
    first: u64,
    mut goes_on: impl FnMut(u64) -> bool,
) -> Result<Tally, Box<Failure>> {
    let mut tally = Tally::default();
    let mut seed = first;
    while goes_on(seed - first) {
        let growing = (target.grow)(&mut StdRng::seed_from_u64(seed), corpus);
        let inputs = lengths(&growing);
        let mut grown = [(0, Cost::default()); 3];
        for (place, input) in grown.iter_mut().zip(&inputs) {
            *place = (input.len(), read(target, seed, input, &mut tally)?);
        }
        if law::judge_growth(&grown).is_err() {
            for _ in 0..AGAIN {
                for ((_, cost), input) in grown.iter_mut().zip(&inputs) {
                    cost.time = cost.time.min(read(target, seed, input, &mut tally)?.time);
                }
            }
        }
        if let Err(what) = law::judge_growth(&grown) {
            let [_, _, input] = inputs;
            return Err(Box::new(Failure { target: target.name, seed, input, what }));
        }
        seed += 1;
    }
    Ok(tally)
}

/// An input at a quarter of its length, at half of it, and at all of it.
pub(crate) fn lengths(growing: &dyn Fn(usize) -> Vec<u8>) -> [Vec<u8>; 3] {
    let mut times = 4;
    let mut inputs = [growing(1), growing(2), growing(4)];
    // What has stopped to grow is as long as it gets.
    while inputs[2].len() < LONGEST && inputs[1].len() < inputs[2].len() && times < MOST_TIMES {
        times *= 2;
        let [_, second, third] = inputs;
        inputs = [second, third, growing(times)];
    }
    inputs
}

/// Reads an input, and judges what it costs.
fn read(target: &Target, seed: u64, input: &[u8], tally: &mut Tally) -> Result<Cost, Box<Failure>> {
    let failure = |what: String| Box::new(Failure { target: target.name, seed, input: input.to_vec(), what });
    let measured = || {
        let begin = now();
        let (read, cost) = cost::of(|| catch_unwind(AssertUnwindSafe(|| (target.read)(input))));
        (read, cost, begin.elapsed())
    };
    let (read, mut cost, took) = measured();
    tally.add(input.len(), took, cost);
    if let Err(panic) = read {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        return Err(failure(text.unwrap_or_else(|| "it panicked".to_owned())));
    }
    // Tables that are made once for all are made by whichever input comes first.
    if target.law.judge(input.len(), cost).is_err() {
        cost = measured().1;
    }
    target.law.judge(input.len(), cost).map_err(failure)?;
    if took > SLOW {
        return Err(failure(format!("it took {took:?}")));
    }
    Ok(cost)
}

#[allow(clippy::disallowed_methods, reason = "how long an input takes is measured here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Growing, Law};

    /// How a reader breaks the law of time; nothing if it keeps it.
    fn said(read: fn(&[u8])) -> Option<String> {
        let grow: fn(&mut StdRng, &Corpus) -> Growing = |_, _| Box::new(|times| b"[".repeat(times));
        let law = Law { base: 0, per_byte: 100 };
        let target = Target { name: "a fault", make: |_, _| Vec::new(), grow, read, law };
        run_growing(&target, &Corpus::default(), 1, |at| at < 1).err().map(|failure| failure.what)
    }

    /// Keeps a processor busy for so long, whatever its speed and whoever else wants it.
    fn busy_for(time: Duration) {
        let begin = cost::busy();
        while cost::busy() - begin < time {}
    }

    #[test]
    fn time_that_grows_faster_than_its_input_is_found() {
        let counted_anew = said(|input| {
            let squared = (input.len() as f64 / LONGEST as f64).powi(2);
            busy_for(Duration::from_millis(200).mul_f64(squared));
        });
        assert!(counted_anew.unwrap().contains("of a processor"));
        let counted_once = said(|input| {
            busy_for(Duration::from_millis(200).mul_f64(input.len() as f64 / LONGEST as f64));
        });
        assert_eq!(counted_once, None);
    }
}
