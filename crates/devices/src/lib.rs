//! Which devices a claim gets on a node: dynamic resource allocation with structured parameters (KEP-4381), without I/O.
//!
//! An [`Inventory`] is what drivers say that there is (ResourceSlices) and what claims have of it. An [`Ask`] is what a claim asks for,
//! with the classes that it names. [`allocate`] finds devices for all of a pod's claims on one node, or says that there are none.
//! Follows `k8s.io/dynamic-resource-allocation/structured`. Devices that several claims may have at once
//! (`allowMultipleAllocations`), and those that are to be waited for (`bindingConditions`), are not allocated here.

mod allocate;
mod ask;
mod inventory;
mod result;
mod selector;

#[cfg(test)]
mod tests;

pub use allocate::allocate;
pub use ask::Ask;
pub use inventory::{Inventory, Place};
