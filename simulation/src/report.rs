//! What a seed's world saw, and what went wrong in it.

use std::collections::BTreeMap;
use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Which check found it.
    pub check: &'static str,
    /// What it found.
    pub what: String,
}

impl Failure {
    /// A failure that `check` found.
    pub fn new(check: &'static str, what: impl Into<String>) -> Self {
        Failure { check, what: what.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.what)
    }
}

/// What a world saw, or many of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that were handled: messages, ticks, syncs, requests.
    pub steps: u64,
    /// Elections won.
    pub elections: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Operations by clients, by how they ended.
    pub operations: BTreeMap<&'static str, u64>,
    /// Events that watchers got.
    pub watched: u64,
    /// Histories searched for an order, and those that were too large to.
    pub histories: (u64, u64),
    /// How much time passed in there, in milliseconds.
    pub simulated_ms: u64,
    /// A checksum of all that happened: the same seed has the same.
    pub digest: u32,
}

impl Report {
    /// Adds another world's numbers.
    pub fn add(&mut self, other: &Report) {
        self.steps += other.steps;
        self.elections += other.elections;
        for (sum, more) in [(&mut self.faults, &other.faults), (&mut self.operations, &other.operations)] {
            for (kind, count) in more {
                *sum.entry(kind).or_default() += count;
            }
        }
        self.watched += other.watched;
        self.histories.0 += other.histories.0;
        self.histories.1 += other.histories.1;
        self.simulated_ms += other.simulated_ms;
        self.digest = self.digest.rotate_left(1) ^ other.digest;
    }

    /// Counts a fault.
    pub fn fault(&mut self, kind: &'static str) {
        *self.faults.entry(kind).or_default() += 1;
    }

    /// Counts an operation.
    pub fn operation(&mut self, kind: &'static str) {
        *self.operations.entry(kind).or_default() += 1;
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "steps": self.steps,
            "elections": self.elections,
            "faults": self.faults,
            "faults_total": self.faults.values().sum::<u64>(),
            "operations": self.operations,
            "watched": self.watched,
            "histories": self.histories.0,
            "histories_too_large": self.histories.1,
            "simulated_ms": self.simulated_ms,
            "digest": format!("{:08x}", self.digest),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = |counts: &BTreeMap<&'static str, u64>| {
            counts.iter().map(|(kind, n)| format!("  {n:>10}  {kind}\n")).collect::<String>()
        };
        let total: u64 = self.faults.values().sum();
        writeln!(f, "{} steps in {:.1} simulated hours", self.steps, self.simulated_ms as f64 / 3.6e6)?;
        writeln!(f, "{} elections won", self.elections)?;
        write!(f, "{total} faults\n{}", counts(&self.faults))?;
        write!(f, "operations\n{}", counts(&self.operations))?;
        writeln!(f, "{} events watched", self.watched)?;
        writeln!(f, "{} histories linearizable", self.histories.0)?;
        if self.histories.1 > 0 {
            writeln!(f, "{} histories too large to search", self.histories.1)?;
        }
        write!(f, "digest {:08x}", self.digest)
    }
}
