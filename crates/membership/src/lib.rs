//! Heartbeats: who is alive, and since when.
