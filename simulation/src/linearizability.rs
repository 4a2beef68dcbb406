//! Whether a history of one object is linearizable: whether each operation could have happened at one moment
//! between its call and its return, one after the other.
//!
//! The search is Wing and Gong's with Lowe's memory of what was tried ("Testing for linearizability", 2017):
//! a set of operations done and the state that they led to need to be looked at once.

use std::collections::HashSet;
use std::hash::Hash;

/// What an object's operations mean.
pub trait Model {
    /// The object between two operations.
    type State: Clone + Eq + Hash;
    /// An operation with what it was seen to answer.
    type Operation;

    /// The object before the first operation.
    fn initial(&self) -> Self::State;

    /// The states that the operation may lead to from `state`; none if it could not have answered so.
    fn step(&self, state: &Self::State, operation: &Self::Operation) -> Vec<Self::State>;
}

/// An operation and when it was going on.
#[derive(Debug, Clone)]
pub struct Call<O> {
    /// When it was asked for.
    pub called: u64,
    /// When its answer came. Without one it may happen at any time after the call, or never.
    pub returned: Option<u64>,
    /// The operation.
    pub operation: O,
}

/// What the search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order that explains all answers.
    Linearizable,
    /// There is none. The longest attempt explained a number of operations, and then none of these (places in
    /// the history) would fit.
    Broken {
        /// How many operations fit.
        explained: usize,
        /// Those that could have come next.
        stuck: Vec<usize>,
    },
    /// The search was given up.
    TooLarge,
}

/// The most steps that are tried for one history.
const MOST_STEPS: usize = 1_000_000;

/// Searches for an order that explains all answers.
pub fn check<M: Model>(model: &M, history: &[Call<M::Operation>]) -> Verdict {
    let mut calls: Vec<(usize, &Call<M::Operation>)> = history.iter().enumerate().collect();
    calls.sort_by_key(|(_, call)| call.called);
    let answered = calls.iter().filter(|(_, call)| call.returned.is_some()).count();
    let mut search = Search {
        model,
        calls: &calls,
        done: vec![0; calls.len().div_ceil(64)],
        tried: HashSet::new(),
        steps: 0,
        best: (0, Vec::new()),
    };
    match search.run(answered) {
        Some(true) => Verdict::Linearizable,
        Some(false) => {
            let (explained, stuck) = search.best;
            Verdict::Broken { explained, stuck }
        }
        None => Verdict::TooLarge,
    }
}

struct Search<'a, M: Model> {
    model: &'a M,
    /// With their places in the history, by when they were called.
    calls: &'a [(usize, &'a Call<M::Operation>)],
    /// A bit for each call.
    done: Vec<u64>,
    tried: HashSet<(Vec<u64>, M::State)>,
    steps: usize,
    best: (usize, Vec<usize>),
}

/// A place in the search: what may come next, last one first, and the call that led here.
struct Level<S> {
    choices: Vec<(usize, S)>,
    by: Option<usize>,
}

impl<M: Model> Search<'_, M> {
    /// Whether an order was found; none if there were too many to try.
    fn run(&mut self, answered: usize) -> Option<bool> {
        let mut left = answered;
        if left == 0 {
            return Some(true);
        }
        let state = self.model.initial();
        let mut levels = vec![Level { choices: self.choices(&state, answered), by: None }];
        while let Some(level) = levels.last_mut() {
            let Some((n, state)) = level.choices.pop() else {
                if let Some(n) = level.by {
                    self.done[n / 64] &= !(1 << (n % 64));
                    left += usize::from(self.calls[n].1.returned.is_some());
                }
                levels.pop();
                continue;
            };
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return None;
            }
            self.done[n / 64] |= 1 << (n % 64);
            if !self.tried.insert((self.done.clone(), state.clone())) {
                self.done[n / 64] &= !(1 << (n % 64));
                continue;
            }
            left -= usize::from(self.calls[n].1.returned.is_some());
            if left == 0 {
                return Some(true);
            }
            let choices = self.choices(&state, answered - left);
            levels.push(Level { choices, by: Some(n) });
        }
        Some(false)
    }

    /// The calls that may come next: all that were made before the first of those left has returned.
    fn choices(&mut self, state: &M::State, explained: usize) -> Vec<(usize, M::State)> {
        let is_left = |n: &usize| self.done[n / 64] & (1 << (n % 64)) == 0;
        let left = || (0..self.calls.len()).filter(is_left);
        let until = left().filter_map(|n| self.calls[n].1.returned).min().unwrap_or(u64::MAX);
        let mut open: Vec<usize> = left().take_while(|n| self.calls[*n].1.called <= until).collect();
        // What returned first is tried first, and what nobody saw return only where nothing else fits.
        open.sort_by_key(|n| std::cmp::Reverse(self.calls[*n].1.returned.unwrap_or(u64::MAX)));
        let mut choices = Vec::new();
        for n in &open {
            let next = self.model.step(state, &self.calls[*n].1.operation);
            choices.extend(next.into_iter().map(|state| (*n, state)));
        }
        if explained >= self.best.0 {
            let answered = open.iter().filter(|n| self.calls[**n].1.returned.is_some());
            self.best = (explained, answered.map(|n| self.calls[*n].0).collect());
        }
        choices
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register: a write of a value, a read that saw one.
    struct Register;
    #[derive(Clone)]
    enum Do {
        Write(u8),
        Read(u8),
    }
    use Do::{Read, Write};

    impl Model for Register {
        type State = u8;
        type Operation = Do;
        fn initial(&self) -> u8 {
            0
        }
        fn step(&self, state: &u8, operation: &Do) -> Vec<u8> {
            match operation {
                Write(value) => vec![*value],
                Read(seen) => {
                    if seen == state {
                        vec![*state]
                    } else {
                        vec![]
                    }
                }
            }
        }
    }

    fn verdict(history: &[(u64, Option<u64>, Do)]) -> Verdict {
        let call = |(called, returned, operation): &(u64, Option<u64>, Do)| Call {
            called: *called,
            returned: *returned,
            operation: operation.clone(),
        };
        check(&Register, &history.iter().map(call).collect::<Vec<_>>())
    }

    #[test]
    fn histories_that_could_have_been() {
        for history in [
            vec![],
            vec![(1, Some(2), Write(1)), (3, Some(4), Read(1))],
            // At the same time, either order.
            vec![(1, Some(9), Write(1)), (2, Some(3), Read(0)), (4, Some(5), Read(1))],
            // Nobody knows whether it was done, until somebody sees it.
            vec![(1, None, Write(1)), (5, Some(6), Read(0)), (7, Some(8), Read(1))],
            vec![(1, None, Write(1)), (5, Some(6), Read(0))],
        ] {
            assert_eq!(verdict(&history), Verdict::Linearizable);
        }
    }

    #[test]
    fn histories_that_could_not() {
        for history in [
            // A write that was acknowledged is lost.
            vec![(1, Some(2), Write(1)), (3, Some(4), Read(0))],
            // A read goes back in time.
            vec![(1, Some(9), Write(1)), (2, Some(3), Read(1)), (4, Some(5), Read(0))],
            // Done twice.
            vec![(1, None, Write(1)), (2, Some(3), Read(1)), (4, Some(5), Write(2)), (6, Some(7), Read(1))],
            vec![(1, Some(2), Read(7))],
        ] {
            assert!(matches!(verdict(&history), Verdict::Broken { .. }));
        }
    }
}
