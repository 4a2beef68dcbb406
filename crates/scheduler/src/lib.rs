//! Snapshot to placements.
