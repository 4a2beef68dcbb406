//! Whole-cluster tests; see the files beside this crate.
