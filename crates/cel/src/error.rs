//! What can be wrong with an expression.

use std::fmt;

/// One fault of an expression's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// Where, in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
}

/// An expression can't be compiled: each fault with its place, in upstream's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    text: String,
    faults: Vec<Fault>,
    stage: Stage,
}

/// How far an expression came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Its text is wrong, or uses something wrongly.
    Compilation,
    /// Something in it can never work, such as `int('x')`.
    Planning,
}

/// The most faults of one expression that are reported. cel-go reports 100; each shows its line again.
const MOST_FAULTS: usize = 20;
/// The text of longer lines isn't shown, so that all faults fit into an answer. cel-go shows up to 16,384 characters.
const LONGEST_LINE: usize = 1000;

impl CompileError {
    pub(crate) fn new(text: &str, mut faults: Vec<Fault>) -> Self {
        faults.truncate(MOST_FAULTS);
        CompileError { text: text.to_owned(), faults, stage: Stage::Compilation }
    }

    /// Of a text that is well formed, but in which something can never work.
    pub(crate) fn planning(why: String) -> Self {
        CompileError {
            text: String::new(),
            faults: vec![Fault { at: 0, message: why }],
            stage: Stage::Planning,
        }
    }

    /// At what it failed.
    pub fn stage(&self) -> Stage {
        self.stage
    }
}

impl std::error::Error for CompileError {}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Stage::Planning, Some(fault)) = (self.stage, self.faults.first()) {
            return f.write_str(&fault.message);
        }
        for (index, fault) in self.faults.iter().enumerate() {
            let before = &self.text[..fault.at.min(self.text.len())];
            let start = before.rfind('\n').map_or(0, |at| at + 1);
            let line = self.text[start..].lines().next().unwrap_or_default();
            let column = before[start..].chars().count();
            let number = before.matches('\n').count() + 1;
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "ERROR: <input>:{number}:{}: {}", column + 1, fault.message)?;
            if line.len() <= LONGEST_LINE {
                write!(f, "\n | {line}\n | {}^", ".".repeat(column))?;
            }
        }
        Ok(())
    }
}

/// An expression could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It fails with the values that it got, such as by a key that isn't there.
    #[error("{0}")]
    Failed(String),
    /// It wants to do more than it may.
    #[error("operation cancelled: actual cost limit exceeded")]
    TooExpensive,
}

impl Error {
    pub(crate) fn failed<T>(why: impl Into<String>) -> Result<T, Error> {
        Err(Error::Failed(why.into()))
    }
}
