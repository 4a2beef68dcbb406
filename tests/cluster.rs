//! Whole clusters on this machine, driven by independent clients.
