//! Lies that a member tells on purpose, to show that they are found.

use serde::{Deserialize, Serialize};

/// A lie that a member tells now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Lie {
    /// A write is acknowledged and never carried out.
    AckWithoutWrite,
    /// A write is carried out twice.
    WriteTwice,
    /// A watch leaves an event out.
    SkippedEvent,
}
