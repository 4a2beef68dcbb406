//! Runs a target over many inputs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use crate::corpus::Corpus;
use crate::targets::Target;

/// An input may take so long; a build without optimisation on a busy machine is slow.
const SLOW: Duration = Duration::from_secs(10);

/// An input that a target panicked at, or took too long over.
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
#[derive(Debug)]
pub struct Tally {
    /// How many inputs were read.
    pub inputs: u64,
    /// The longest time that one took.
    pub longest: Duration,
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
    let mut tally = Tally { inputs: 0, longest: Duration::ZERO };
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

fn read(target: &Target, seed: u64, input: &[u8], tally: &mut Tally) -> Result<(), Box<Failure>> {
    let failure = |what: String| Box::new(Failure { target: target.name, seed, input: input.to_vec(), what });
    let begin = now();
    let read = catch_unwind(AssertUnwindSafe(|| (target.read)(input)));
    let took = begin.elapsed();
    tally.inputs += 1;
    tally.longest = tally.longest.max(took);
    match read {
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err(failure(text.unwrap_or_else(|| "it panicked".to_owned())))
        }
        Ok(()) if took > SLOW => Err(failure(format!("it took {took:?}"))),
        Ok(()) => Ok(()),
    }
}

#[allow(clippy::disallowed_methods, reason = "how long an input takes is measured here")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
